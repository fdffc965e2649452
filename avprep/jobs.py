"""Run independent jobs on the cores of this machine or of a cluster, through joblib.

Results come back as they finish. A worker that dies takes only the jobs in flight with it: the
pool is started again and those jobs are done anew.
"""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import Literal, TypeVar

import joblib
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import BrokenProcessPool

from avprep.errors import UserError, WorkFailed
from avprep.isolation import exit_with_parent

Job = TypeVar("Job")
Result = TypeVar("Result")

Backend = Literal["loky", "dask", "ray"]
_RESTARTS_WITHOUT_PROGRESS = 3


@dataclass(frozen=True)
class PoolOptions:
    """Who does the work."""

    workers: int = 0  # 0: one a core of this machine, or all of the cluster
    backend: Backend = "loky"
    address: str = ""  # of a running dask scheduler or ray cluster; empty starts a local one

    def count(self) -> int:
        """Number of workers."""
        return self.workers or available_cores()


def available_cores() -> int:
    """Cores this process may use, which a container or Slurm may have limited."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_jobs(
    work: Callable[[Job], Result], jobs: Sequence[Job], pool: PoolOptions
) -> Iterator[Result]:
    """Yield `work(job)` for every job, in the order they finish.

    Raises:
        WorkFailed: workers died again and again without finishing a single job.
        Exception: whatever `work` raised; jobs that have not begun are not started.
    """
    if pool.backend == "loky" and (pool.count() == 1 or len(jobs) == 1):
        yield from map(work, jobs)
        return
    remaining = dict(enumerate(jobs))
    failures = 0
    while remaining:
        before = len(remaining)
        try:
            for number, result in _run_once(work, remaining, pool):
                del remaining[number]
                yield result
        except BrokenProcessPool as error:
            failures = failures + 1 if len(remaining) == before else 0
            if failures >= _RESTARTS_WITHOUT_PROGRESS:
                raise WorkFailed(
                    f"workers died {failures} times in a row without finishing a job ({error}). "
                    "Is there enough memory? Try fewer --workers."
                ) from error


def _run_once(
    work: Callable[[Job], Result], jobs: dict[int, Job], pool: PoolOptions
) -> Iterator[tuple[int, Result]]:
    task = joblib.delayed(functools.partial(_work_numbered, work))
    is_local = pool.backend == "loky"
    with _backend(pool):
        parallel = joblib.Parallel(
            n_jobs=min(pool.count(), len(jobs)) if is_local else pool.workers or -1,
            # ray's back end cannot hand out results one by one.
            return_as="list" if pool.backend == "ray" else "generator_unordered",
            batch_size=1,
            pre_dispatch="2*n_jobs",
        )
        try:
            with _interrupts_held():
                results = parallel(task(number, job) for number, job in list(jobs.items()))
            yield from results
        except BaseException:
            if is_local:
                # reuse=True: whatever pool there is; any other value may wait for its jobs.
                get_reusable_executor(reuse=True).shutdown(wait=False, kill_workers=True)
            raise


def _work_numbered(work: Callable[[Job], Result], number: int, job: Job) -> tuple[int, Result]:
    return number, work(job)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C waits for the end of the block, and processes started inside never hear of it.

    It reaches every process of the terminal. The parent ends its workers itself; left to
    themselves they would each print a traceback.
    """
    # The first shared resource starts this process, and that unblocks the signal again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _backend(pool: PoolOptions) -> joblib.parallel_config:
    if pool.backend == "dask":
        return _dask(pool)
    if pool.backend == "ray":
        return _ray(pool)
    return joblib.parallel_config("loky", initializer=exit_with_parent, initargs=(os.getpid(),))


def _dask(pool: PoolOptions) -> joblib.parallel_config:
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise UserError("--backend dask needs dask: pip install 'avprep-cavmae[dask]'") from error
    if pool.address:
        client = Client(pool.address)
    else:
        client = Client(
            LocalCluster(n_workers=pool.count(), threads_per_worker=1, dashboard_address=None)
        )
    return joblib.parallel_config("dask", client=client)


def _ray(pool: PoolOptions) -> joblib.parallel_config:
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError as error:
        raise UserError("--backend ray needs ray: pip install 'avprep-cavmae[ray]'") from error
    if not ray.is_initialized():
        ray.init(
            address=pool.address or None,
            num_cpus=None if pool.address else pool.count(),
            include_dashboard=False if not pool.address else None,
            log_to_driver=False,
        )
    register_ray()
    return joblib.parallel_config("ray")
