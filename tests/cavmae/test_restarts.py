"""torchrun starts the ranks again when one has died, and the run ends as if nothing had been."""

from __future__ import annotations

import os
import signal
import sys
import threading
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from cavmae.checkpoints import save_model
from cavmae.cli import main
from cavmae.model import CAVMAE
from cavmae.train.checkpoint import list_checkpoints
from tests import forks
from tests.cavmae.test_train import rows
from tests.cavmae.tiny_models import SMALL
from tests.cavmae.tiny_shards import write_tiny_shards
from tests.faults.conftest import wait_until


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


def launch(place: Path, out: Path) -> None:
    """What torchrun does, with ranks that are forked: loading PyTorch takes each some seconds."""
    one_machine = {"min_nodes": 1, "max_nodes": 1, "nproc_per_node": 2, "max_restarts": 1}
    meeting = {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0"}
    elastic_launch(LaunchConfig(**one_machine, **meeting, start_method="fork"), rank)(place, out)


def rank(place: Path, out: Path) -> None:
    """One of the ranks. At its first start, the second is killed when there is a checkpoint."""
    if (os.environ["RANK"], os.environ["TORCHELASTIC_RESTART_COUNT"]) == ("1", "0"):
        threading.Thread(target=die, args=(out / "checkpoints",)).start()
    sys.argv = ["cavmae", *words(place, out)]
    main()


def die(checkpoints: Path) -> None:
    wait_until(lambda: list_checkpoints(checkpoints))
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_rank_killed_under_torchrun_costs_nothing(tmp_path):
    write_tiny_shards(tmp_path / "shards", samples=8)
    torch.manual_seed(0)
    save_model(tmp_path / "init.safetensors", CAVMAE(SMALL))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert forks.on_ranks(2, *words(tmp_path, whole)).returncode == 0

    said, errors = tmp_path / "said", tmp_path / "errors"
    process = forks.start(
        call=partial(launch, tmp_path, killed),
        out=said,
        errors=errors,
        environment={"TMPDIR": str(tmp_path)},  # torchrun leaves a folder there
    )
    process.join()
    assert process.exitcode == 0, errors.read_text()
    assert said.read_text().count("resuming from step-") == 1
    ours, theirs = (load_file(out / "model.safetensors") for out in (killed, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert rows(killed) == rows(whole)
