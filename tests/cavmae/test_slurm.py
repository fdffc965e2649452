"""Under Slurm each process knows its place, and the batch scripts do what their heads say."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from avprep.errors import UserError
from cavmae.checkpoints import save_model
from cavmae.distributed import Launch, first_host, read_launch
from cavmae.model import CAVMAE
from cavmae.train.checkpoint import list_checkpoints
from tests.cavmae.fake_slurm import job_variables
from tests.cavmae.tiny_models import SMALL
from tests.cavmae.tiny_shards import write_tiny_shards
from tests.conftest import REPOSITORY
from tests.faults.conftest import PATIENCE, without_torch

SLURM = REPOSITORY / "pipelines" / "slurm"
SCRIPTS = sorted(SLURM.glob("*.sbatch"))
STEP = {
    "SLURM_JOB_ID": "40012",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
}


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("gpu07", "gpu07"),
        ("gpu07,gpu09", "gpu07"),
        ("gpu[07-09,12],x3", "gpu07"),
        ("gpu[12,14]", "gpu12"),
        ("rack[1-2]n[3-4].site", "rack1n3.site"),
        ("a-b,c[1-2]", "a-b"),
    ],
)
def test_the_first_machine_of_a_slurm_list(nodes, host):
    assert first_host(nodes) == host


def test_a_process_of_srun_knows_its_place_and_torchrun_goes_first():
    assert read_launch(STEP) == Launch(5, 8, 1, "tcp://gpu07:24012")
    chosen = {**STEP, "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "999"}
    assert read_launch(chosen).meeting == "tcp://10.0.0.1:999"
    torchrun = {**STEP, "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}
    assert read_launch(torchrun) == Launch(1, 2, 1, None)


def test_a_batch_script_without_srun_is_one_process():
    batch = {"SLURM_JOB_ID": "40012", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"}
    assert read_launch(batch) == read_launch({}) == Launch()


def test_variables_that_contradict_each_other_are_told():
    with pytest.raises(UserError, match=r"RANK.*Start the processes with torchrun or srun"):
        read_launch({"WORLD_SIZE": "2"})
    with pytest.raises(UserError, match="'two'"):
        read_launch({**STEP, "SLURM_STEP_NUM_TASKS": "two"})


SITECUSTOMIZE = """
import atexit, os, time
atexit.register(time.sleep, 0.7 * int(os.environ.get("SLURM_PROCID", "0")))
"""
SRUN = """#!/bin/sh
exec {python} -m tests.cavmae.fake_slurm "$@"
"""
SCONTROL = """#!/bin/sh
echo "$@" >> "$REQUEUED"
"""


class Cluster:
    """Runs commands as a job of Slurm would; the second rank leaves later than the first."""

    def __init__(self, folder: Path) -> None:
        self.requeued = folder / "requeued"
        self.log = folder / "steps"
        tools = folder / "tools"
        tools.mkdir()
        (tools / "sitecustomize.py").write_text(SITECUSTOMIZE)
        for name, text in (("srun", SRUN.format(python=sys.executable)), ("scontrol", SCONTROL)):
            (tools / name).write_text(text)
            (tools / name).chmod(0o755)
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        self.environment = {
            **os.environ,
            "PATH": f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": f"{tools}:{REPOSITORY}",
            "MASTER_PORT": str(port),
            "REQUEUED": str(self.requeued),
            "SRUN_LOG": str(self.log),
        }

    def run(self, *words: object, **variables: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*map(str, words)],
            capture_output=True,
            text=True,
            env={**self.environment, **{name: str(value) for name, value in variables.items()}},
            cwd=REPOSITORY,
            timeout=PATIENCE,
        )

    def submit(
        self, script: Path, sbatch: list[str], *words: object, **variables: object
    ) -> subprocess.CompletedProcess[str]:
        return self.run("bash", script, *words, **job_variables(script, sbatch), **variables)

    def steps(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@pytest.fixture
def cluster(tmp_path):
    (tmp_path / "cluster").mkdir()
    return Cluster(tmp_path / "cluster")


@pytest.fixture
def finetuning(tmp_path) -> tuple[dict[str, Path], list[object]]:
    """The variables and words for the script that finetunes; the run takes some seconds."""
    write_tiny_shards(tmp_path / "shards", samples=13)
    torch.manual_seed(0)
    save_model(tmp_path / "init.safetensors", CAVMAE(SMALL))
    names = {"SHARDS": tmp_path / "shards", "VAL": tmp_path / "shards", "RUN": tmp_path / "run"}
    flags = ["--epochs", 15, "--batch-size", 2, "--precision", "fp32", "--checkpoint-steps", 1]
    return {**names, "INIT": tmp_path / "init.safetensors"}, [*flags, "--device", "cpu"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_batch_scripts_are_sound_shell_and_say_what_to_edit(script):
    subprocess.run(["bash", "-n", str(script)], check=True)
    text = script.read_text()
    for wish in ("#SBATCH --signal=TERM@", "#SBATCH --requeue", "#SBATCH --open-mode=append"):
        assert f"\n{wish}" in text
    for place in ("##SBATCH --account=", "##SBATCH --partition=", "# source /path/to/.venv"):
        assert f"\n{place}" in text


def test_a_job_that_reaches_its_limit_is_queued_again_and_ends_with_an_evaluation(
    cluster, finetuning, tmp_path
):
    names, flags = finetuning
    script = SLURM / "finetune.sbatch"
    sizes = ["--ntasks-per-node=2", "--cpus-per-task=1"]
    saves = tmp_path / "run" / "checkpoints" / "step-*"
    first = cluster.submit(script, sizes, *flags, **names, SRUN_STOP=saves)
    assert first.returncode == 130, first.stderr
    assert "exit codes [130, 130]" in first.stderr
    assert cluster.requeued.read_text() == "requeue 7\n"
    saved = list_checkpoints(tmp_path / "run" / "checkpoints")
    assert saved
    second = cluster.submit(script, sizes, *flags, **names)
    assert second.returncode == 0, second.stderr
    assert f"resuming from {saved[-1].name}" in second.stdout
    assert "13 of 13 clips" in second.stdout
    assert json.loads((tmp_path / "run" / "result.json").read_text())["epochs"] == 15
    steps = cluster.steps()
    assert [(step["tasks"], step["cpus"], step["command"][3]) for step in steps] == [
        (2, 1, "finetune"),
        (2, 1, "finetune"),
        (2, 1, "eval"),
    ]
    assert cluster.requeued.read_text() == "requeue 7\n"


def test_a_job_that_fails_is_not_queued_again(cluster, finetuning):
    names, flags = finetuning
    (names["SHARDS"] / "dataset.json").write_text("{}")
    failed = cluster.submit(SLURM / "finetune.sbatch", ["--cpus-per-task=3"], *flags, **names)
    assert failed.returncode == 2, failed.stderr
    assert not cluster.requeued.exists()
    (step,) = cluster.steps()
    assert (step["tasks"], step["cpus"]) == (1, 3)
    assert step["command"][step["command"].index("--workers") + 1] == "2"


def test_a_run_directory_that_cannot_be_made_ends_all_ranks_alike(cluster, finetuning, tmp_path):
    """The first rank alone makes it."""
    names, flags = finetuning
    (tmp_path / "file").touch()
    failed = cluster.submit(
        *(SLURM / "finetune.sbatch", ["--ntasks-per-node=2", "--cpus-per-task=1"], *flags),
        **{**names, "RUN": tmp_path / "file" / "run"},
    )
    assert "exit codes [2, 2]" in failed.stderr
    assert failed.stderr.count(f"Error: {tmp_path}/file/run: cannot make this folder") == 2


def test_ranks_that_srun_ends_while_they_leave_keep_their_exit_code(cluster, finetuning, tmp_path):
    """Scripts of other people may say --kill-on-bad-exit=1."""
    names, flags = finetuning
    command = ["python", "-m", "cavmae", "finetune", "--shards", names["SHARDS"]]
    command += ["--val-shards", names["VAL"], "--out", names["RUN"], "--init", names["INIT"]]
    ended = cluster.run(
        *("srun", "--kill-on-bad-exit=1", *command, "--workers", "0", *flags),
        SLURM_NTASKS=2,
        SLURM_JOB_ID=7,
        SRUN_STOP=tmp_path / "run" / "checkpoints" / "step-*",
    )
    assert ended.returncode == 130, ended.stderr
    assert "exit codes [130, 130]" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_signal_before_the_first_step_queues_the_job_again_too(cluster, finetuning, tmp_path):
    names, flags = finetuning
    stopped = cluster.submit(
        *(SLURM / "finetune.sbatch", ["--cpus-per-task=1"], *flags),
        **names,
        SRUN_STOP=tmp_path / "run" / "config.json",
    )
    assert stopped.returncode == 130, stopped.stderr
    assert cluster.requeued.read_text() == "requeue 7\n"


def test_an_array_builds_a_set_and_a_task_that_is_preempted_is_queued_again(
    cluster, demo_videos, tmp_path
):
    cluster.environment["PYTHONPATH"] = without_torch()["PYTHONPATH"]
    manifest, out = tmp_path / "m.json", tmp_path / "shards"
    made = cluster.run(
        *("python", "-m", "avprep", "manifest", "folder", demo_videos / "train", "--out", manifest)
    )
    assert made.returncode == 0, made.stderr
    names = {"MANIFEST": manifest, "SHARDS": out}
    script, array = SLURM / "shard.sbatch", ["--array=1-2", "--cpus-per-task=1"]
    words = ("--samples-per-shard", 2)
    stopped = cluster.submit(
        *(script, array, *words), **names, SLURM_ARRAY_TASK_ID=1, SRUN_STOP=out / "*.tar"
    )
    assert stopped.returncode == 130, stopped.stderr
    assert cluster.requeued.read_text() == "requeue 7\n"
    for number in (1, 2):
        done = cluster.submit(script, array, *words, **names, SLURM_ARRAY_TASK_ID=number)
        assert done.returncode == 0, done.stderr
    assert "complete:" in done.stdout
    undisturbed = tmp_path / "undisturbed"
    cluster.run("python", "-m", "avprep", "shard", manifest, "--out", undisturbed, *words)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        path.name: path.read_bytes() for path in undisturbed.iterdir()
    }
