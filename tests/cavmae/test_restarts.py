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
from tests.faults.conftest import environment, kin, wait_until


def start(place: Path, out: Path, token: str) -> subprocess.Popen[str]:
    """Two ranks that save after each step, of which there are 24."""
    options = {
        "shards": place / "shards",
        "init": place / "init.safetensors",
        "out": out,
        "batch-size": 2,
        "epochs": 12,
        "checkpoint-steps": 1,
        "workers": 0,
        "device": "cpu",
    }
    launch = ("torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1")
    flags = (f"--{name}={value}" for name, value in options.items())
    return subprocess.Popen(
        [sys.executable, "-m", *launch, "-m", "cavmae", "pretrain", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**environment(), "CUDA_VISIBLE_DEVICES": "", "TOKEN": token},
    )


def rank(number: int, token: str) -> int:
    """The process of a rank."""
    told = f"\0RANK={number}\0".encode()
    (pid,) = (pid for pid in kin(token) if told in Path(f"/proc/{pid}/environ").read_bytes())
    return pid


def test_a_rank_killed_under_torchrun_costs_nothing(tmp_path):
    write_tiny_shards(tmp_path / "shards", samples=8)
    torch.manual_seed(0)
    save_model(tmp_path / "init.safetensors", CAVMAE(replace(CONFIG, patch_size=8)))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(tmp_path, whole, "").wait() == 0

    token = secrets.token_hex()
    process = start(tmp_path, killed, token)
    wait_until(lambda: list_checkpoints(killed / "checkpoints") or process.poll() is not None)
    os.kill(rank(1, token), signal.SIGKILL)
    said, errors = process.communicate()
    assert process.returncode == 0, errors
    assert said.count("resuming from step-") == 1
    ours, theirs = (load_file(out / "model.safetensors") for out in (killed, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert rows(killed) == rows(whole)
