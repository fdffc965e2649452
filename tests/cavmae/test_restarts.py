"""torchrun starts the ranks again when one has died, and the run ends as if nothing had been."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from cavmae.checkpoints import save_model
from cavmae.model import CAVMAE
from cavmae.train.checkpoint import list_checkpoints
from tests.cavmae.test_train import rows
from tests.cavmae.tiny_shards import write_tiny_shards
from tests.cavmae.train_ranks import CONFIG
from tests.faults.conftest import kin, wait_until
from tests.forks import on_ranks


def words(place: Path, out: Path) -> list[str]:
    """Of `cavmae pretrain`, saving after each of twelve steps of two ranks."""
    options = {
        "shards": place / "shards",
        "init": place / "init.safetensors",
        "out": out,
        "batch-size": 2,
        "epochs": 6,
        "checkpoint-steps": 1,
        "workers": 0,
        "device": "cpu",
    }
    return ["pretrain", *(f"--{name}={value}" for name, value in options.items())]


def second_rank(token: str) -> list[int]:
    """Its process, once it is there."""
    return [pid for pid in kin(token) if b"\0RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes()]


def test_a_rank_killed_under_torchrun_costs_nothing(tmp_path):
    write_tiny_shards(tmp_path / "shards", samples=8)
    torch.manual_seed(0)
    save_model(tmp_path / "init.safetensors", CAVMAE(replace(CONFIG, patch_size=8)))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert on_ranks(2, *words(tmp_path, whole)).returncode == 0

    token = secrets.token_hex()
    launch = ("torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1")
    process = subprocess.Popen(
        [sys.executable, "-m", *launch, "-m", "cavmae", *words(tmp_path, killed)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "TOKEN": token},
    )
    wait_until(lambda: second_rank(token) or process.poll() is not None)
    (rank,) = second_rank(token)
    wait_until(lambda: list_checkpoints(killed / "checkpoints") or process.poll() is not None)
    os.kill(rank, signal.SIGKILL)
    said, errors = process.communicate()
    assert process.returncode == 0, errors
    assert said.count("resuming from step-") == 1
    ours, theirs = (load_file(out / "model.safetensors") for out in (killed, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert rows(killed) == rows(whole)
