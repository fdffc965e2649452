"""The same bytes from every back end, each really run; and what happens when its workers die."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from avprep import clusters
from avprep.errors import UserError, WorkFailed
from avprep.jobs import PoolOptions, run_jobs
from tests.faults.conftest import build, contents, run_shard, summary_of, wait_until, without_torch


@pytest.mark.parametrize("backend", ["dask", "ray"])
def test_a_local_cluster_gives_the_same_bytes(manifest, undisturbed, tmp_path, backend):
    module = {"dask": "distributed", "ray": "ray"}[backend]
    pytest.importorskip(module, reason=f"needs the extra {backend}")
    result = run_shard(manifest, tmp_path / "s", "--backend", backend, "--workers", "2", "--json")
    assert result.returncode == 0, result.stderr
    assert summary_of(result)["shards_built"] == 4
    assert "Traceback" not in result.stderr
    assert contents(tmp_path / "s") == undisturbed


@pytest.fixture(scope="module")
def dask_cluster():
    """A running cluster, as somebody else would have started it."""
    distributed = pytest.importorskip("distributed", reason="needs the extra dask")
    import dask

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None
        ) as cluster,
    ):
        yield cluster


@pytest.fixture(scope="module")
def ray_cluster():
    """The same of ray, which this process belongs to."""
    ray = pytest.importorskip("ray", reason="needs the extra ray")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def pool(backend, request) -> PoolOptions:
    """Two workers of a running cluster, or threads."""
    if backend == "dask":
        return PoolOptions(2, backend, request.getfixturevalue("dask_cluster").scheduler_address)
    if backend == "ray":
        request.getfixturevalue("ray_cluster")
    return PoolOptions(2, backend)


def test_a_running_dask_cluster_gives_the_same_bytes(dask_cluster, ordinary, undisturbed, tmp_path):
    address = dask_cluster.scheduler_address
    assert build(ordinary, tmp_path / "s", 0, "dask", address=address).built == 4
    assert len(dask_cluster.workers) == 2  # the cluster is left as it was
    assert contents(tmp_path / "s") == undisturbed


@pytest.mark.parametrize(
    ("backend", "address"), [("dask", "tcp://127.0.0.1:9"), ("ray", "127.0.0.1:9")]
)
def test_an_address_where_nobody_answers_is_named(tmp_path, manifest, backend, address):
    module = {"dask": "distributed", "ray": "ray"}[backend]
    pytest.importorskip(module, reason=f"needs the extra {backend}")
    result = run_shard(
        *(manifest, tmp_path / "s", "--backend", backend, "--address", address),
    )
    assert result.returncode == 2, result.stderr
    assert f"--address {address}" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_dask_cluster_without_a_worker_is_named(monkeypatch):
    distributed = pytest.importorskip("distributed", reason="needs the extra dask")
    monkeypatch.setattr(clusters, "_CONNECT_SECONDS", 1.0)
    with distributed.LocalCluster(n_workers=0, dashboard_address=None) as cluster:
        address = cluster.scheduler_address
        with pytest.raises(UserError, match=f"{address}: this dask cluster has no worker"):
            list(run_jobs(refuse, [1], PoolOptions(0, "dask", address)))


@pytest.mark.parametrize("backend", ["dask", "ray"])
def test_an_extra_that_is_not_installed_is_named(manifest, tmp_path, backend):
    module = {"dask": "distributed", "ray": "ray"}[backend]
    (tmp_path / f"{module}.py").write_text("raise ImportError('absent')")
    result = run_shard(manifest, tmp_path / "s", "--backend", backend, env=without_torch(tmp_path))
    assert result.returncode == 2
    assert f"avprep-cavmae[{backend}]" in result.stderr


def die(job: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return job


def refuse(job: int) -> int:
    raise WorkFailed(f"job {job} says why")


@pytest.mark.parametrize("backend", ["local", "loky", "dask", "ray"])
def test_what_a_job_raises_arrives_as_it_was(pool):
    with pytest.raises(WorkFailed) as caught:
        list(run_jobs(refuse, [1, 1, 1], pool))
    assert str(caught.value) == "job 1 says why"


def wait_for(path: Path) -> str:
    """A job that ends when a file is there; at once where the path is empty."""
    wait_until(lambda: path == Path() or path.exists())
    return path.name


@pytest.mark.parametrize("backend", ["local", "dask", "ray"])
def test_a_result_comes_while_other_jobs_are_at_work(pool, tmp_path):
    """So the progress bar moves: the second job ends when the first one's result has come."""
    later = tmp_path / "the first result came"
    results = run_jobs(wait_for, [later, Path()], pool)
    assert next(results) == ""
    later.touch()
    assert list(results) == [later.name]


@pytest.mark.parametrize("backend", ["dask", "ray"])
def test_workers_that_die_again_and_again_end_the_run(pool, monkeypatch):
    monkeypatch.setenv("RAY_TASK_MAX_RETRIES", "1")  # as few as the cluster of dask allows
    with pytest.raises(WorkFailed, match="died"):
        list(run_jobs(die, [1], pool))


def test_no_job_starts_no_cluster():
    assert list(run_jobs(refuse, [], PoolOptions(2, "dask", "tcp://127.0.0.1:9"))) == []
