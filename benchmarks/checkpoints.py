"""How long training stands still for a checkpoint, compared with writing it.

A model with the state of its optimizer, on the CPU, is saved as a run saves it: copied to memory,
then written by a thread while this one computes. Training stands still for the copying. Writing the
same in the same process without a thread is what it is compared with; both in turn, medians. Also
shown is the longest time for which the writing thread kept the other one from Python.

    python benchmarks/checkpoints.py [--model base]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch
from rows import Row, add_rows_option, times, write_rows

from cavmae.model import CAVMAE, ModelConfig
from cavmae.train.background import BackgroundWriter, Snapshot
from cavmae.train.checkpoint import save_checkpoint
from cavmae.train.parallel import whole, whole_weights

LIMIT = 0.1  # of the time that writing takes


class Run:
    """What a run saves: weights, and two moments of each in the optimizer."""

    def __init__(self, size: str, folder: Path) -> None:
        torch.manual_seed(0)
        self.folder = folder
        self.model = CAVMAE(ModelConfig.preset(size))
        self.optimizer = torch.optim.Adam(self.model.parameters())
        for parameter in self.model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        self.optimizer.step()
        self.snapshot = Snapshot(torch.device("cpu"))
        self.writer = BackgroundWriter()

    def copy(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """The state of the run, in memory that training does not touch."""
        self.snapshot.begin()
        weights = whole_weights(self.model, True, self.snapshot.copy)
        state = {"optimizer": whole(self.optimizer.state_dict(), True, self.snapshot.copy)}
        self.snapshot.finish()
        return weights, state

    def save(self) -> float:
        """Seconds of a save for which training waits."""
        began = time.perf_counter()
        save_checkpoint(
            self.folder, 1, self.model, {"optimizer": self.optimizer.state_dict()}, keep=1
        )
        return time.perf_counter() - began

    def save_in_background(self) -> tuple[float, float]:
        """Seconds for which training waits, and the longest that Python did meanwhile."""
        began = time.perf_counter()
        weights, state = self.copy()
        written = threading.Event()

        def write() -> None:
            try:
                save_checkpoint(self.folder, 1, self.model, state, 1, weights)
            finally:
                written.set()

        self.writer.begin(write)
        last = time.perf_counter()
        stall, pause = last - began, 0.0
        while not written.is_set():
            time.sleep(0.001)
            now = time.perf_counter()
            pause, last = max(pause, now - last), now
        self.writer.finish()
        return stall, pause


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", default="base", help="size of the model")
    parser.add_argument("--rounds", type=int, default=5)
    add_rows_option(parser)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = Run(arguments.model, Path(folder))
        run.save_in_background()  # makes the memory
        rounds = [(run.save(), *run.save_in_background()) for _ in range(arguments.rounds)]
    saving, stall, pause = map(statistics.median, zip(*rounds, strict=True))
    print(f"training waits: {stall * 1000:.0f} ms, a checkpoint of {arguments.model} is written in")
    print(f"{saving * 1000:.0f} ms: {stall / saving:.1%} (goal ≤ {LIMIT:.0%}); while it is written")
    print(f"Python waits at most {pause * 1000:.0f} ms at a time")
    row = Row(
        f"checkpoint of the {arguments.model} model: training stands still for",
        f"{stall * 1000:.0f} ms",
        f"writing it: {saving * 1000:.0f} ms",
        times(stall, saving),
        f"≤ {LIMIT}×",
    )
    write_rows(arguments.rows, [row])


if __name__ == "__main__":
    main()
