"""Under Slurm each process knows its place, and the batch scripts do what their heads say."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from avprep.errors import UserError
from cavmae.checkpoints import save_model
from cavmae.distributed import Launch, first_host, read_launch
from cavmae.model import CAVMAE
from cavmae.train.checkpoint import list_checkpoints
from tests.cavmae.tiny_shards import write_tiny_shards
from tests.cavmae.train_ranks import CONFIG
from tests.conftest import REPOSITORY

SCRIPTS = sorted((REPOSITORY / "pipelines" / "slurm").glob("*.sbatch"))
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
    with pytest.raises(UserError, match=r"RANK.*Start them with torchrun or srun"):
        read_launch({"WORLD_SIZE": "2"})
    with pytest.raises(UserError, match="'two'"):
        read_launch({**STEP, "SLURM_STEP_NUM_TASKS": "two"})


SRUN = """#!{python}
'''Stands for srun on a machine without Slurm: two tasks here, SIGTERM to both if STOP asks so.'''
import os, pathlib, signal, subprocess, sys, time

command = [word for word in sys.argv[1:] if not word.startswith("--kill-on-bad-exit")]
place = {{"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "localhost"}}
tasks = [
    subprocess.Popen(
        command, env={{**os.environ, **place, "SLURM_PROCID": str(n), "SLURM_LOCALID": str(n)}}
    )
    for n in range(2)
]
awaited = os.environ.get("STOP")
while awaited and all(task.poll() is None for task in tasks):
    if any(pathlib.Path(awaited).glob("step-*")):
        for task in tasks:
            task.send_signal(signal.SIGTERM)
        break
    time.sleep(0.005)
sys.exit(max(task.wait() for task in tasks))
"""
SCONTROL = """#!/bin/sh
echo "$@" >> "$REQUEUED"
"""


@pytest.fixture
def cluster(tmp_path):
    """Runs a batch script as Slurm would: with srun, scontrol and a job's variables."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in (("srun", SRUN.format(python=sys.executable)), ("scontrol", SCONTROL)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]

    def submit(script: Path, *flags: object, **variables: object) -> subprocess.CompletedProcess:
        environment = {
            **os.environ,
            "PATH": f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(REPOSITORY),
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "SLURM_JOB_ID": "7",
            "MASTER_PORT": str(port),
            "REQUEUED": str(tmp_path / "requeued"),
            **{name: str(value) for name, value in variables.items()},
        }
        return subprocess.run(
            ["bash", str(script), *map(str, flags)],
            capture_output=True,
            text=True,
            env=environment,
            cwd=REPOSITORY,
            timeout=240,
        )

    return submit


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_batch_scripts_are_sound_shell_and_ask_for_a_signal_before_the_limit(script):
    subprocess.run(["bash", "-n", str(script)], check=True)
    text = script.read_text()
    for wish in ("--signal=TERM@", "--requeue", "--open-mode=append", "--ntasks-per-node=4"):
        assert f"#SBATCH {wish}" in text


def test_a_job_that_reaches_its_limit_is_queued_again_and_ends_with_an_evaluation(
    cluster, tmp_path
):
    write_tiny_shards(tmp_path / "shards", samples=13)
    torch.manual_seed(0)
    save_model(tmp_path / "init.safetensors", CAVMAE(CONFIG))
    names = {"SHARDS": tmp_path / "shards", "VAL": tmp_path / "shards", "RUN": tmp_path / "run"}
    names["INIT"] = tmp_path / "init.safetensors"
    (script,) = [path for path in SCRIPTS if path.stem == "finetune"]
    flags = ("--epochs", 15, "--batch-size", 2, "--workers", 0, "--precision", "fp32")
    flags += ("--checkpoint-steps", 1, "--device", "cpu")
    first = cluster(script, *flags, **names, STOP=tmp_path / "run" / "checkpoints")
    assert first.returncode == 130, first.stderr
    assert (tmp_path / "requeued").read_text() == "requeue 7\n"
    saved = list_checkpoints(tmp_path / "run" / "checkpoints")
    assert saved
    second = cluster(script, *flags, **names)
    assert second.returncode == 0, second.stderr
    assert f"going on from {saved[-1].name}" in second.stdout
    assert "13 of 13 clips" in second.stdout
    assert json.loads((tmp_path / "run" / "result.json").read_text())["epochs"] == 15
