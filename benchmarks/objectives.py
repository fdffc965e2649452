"""What each objective of `cavmae pretrain` makes of the demo's clips, beside random weights.

The demo's 512 clips are pretrained on without labels, with the demo's recipe, once per objective
and seed; 96 others are measured on:

- R@10: sound to picture and picture to sound, of the objectives that compare them;
- k-NN: accuracy of the 5 nearest of the 512 labelled clips, by frozen features;
- finetuned: accuracy after training on two labelled clips per class, other ones for every seed.

Each is a mean over the seeds. A row says what of a clip the model is given; CAV-MAE is measured on
one modality, too, for the MAEs of one modality to stand beside.

    python benchmarks/objectives.py                        # an hour on two cores
    python benchmarks/objectives.py --epochs 10 --seeds 1  # shorter; say so where you quote it
    python benchmarks/objectives.py --quick                # 48 clips, 1 epoch: does it run?
"""

from __future__ import annotations

import argparse
import json
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

from learning import run, splits

from cavmae.demo import DIRECTIONS, demo_commands

_MADE = ("videos", "extract", "manifest", "shard")  # stages of the demo that make its shards
_GIVEN = {"both": "multimodal", "audio": "audioonly", "image": "videoonly"}
# Objective, and what of a clip the model is given.
ROWS = (
    ("cav-mae", "both"),
    ("av-mae", "both"),
    ("cav", "both"),
    ("cav-mae", "audio"),
    ("audio-mae", "audio"),
    ("cav-mae", "image"),
    ("image-mae", "image"),
)


class Demo:
    """The demo's shards, and training runs beside them."""

    def __init__(self, folder: Path, epochs: int | None, quick: bool) -> None:
        """Args:
        folder: keeps everything; what is there already is not made again.
        epochs: of pretraining, in place of the recipe's.
        quick: one epoch of each training, on few clips, which alone vote.
        """
        self.folder = folder
        once = ("--epochs", 1)
        self.pretraining = once if quick else ("--epochs", epochs) if epochs else ()
        self.finetuning = once if quick else ()
        self.chosen = splits("--split", ("few-0", "few-1", "few-2") if quick else ())
        for stage, command in demo_commands(str(folder)):
            if stage in _MADE and not (folder / "shards" / "test" / "dataset.json").exists():
                run(*shlex.split(command))

    def pretrained(self, objective: str, seed: int, is_trained: bool) -> Path:
        """A run, or one whose rate is zero: the weights that it would start from."""
        out = self.folder / f"{objective}-{seed}{'' if is_trained else '-random'}"
        flags: tuple[object, ...] = ("--split", "few-0", "--epochs", 1, "--lr", 0)
        if is_trained:
            flags = (*self.chosen, *self.pretraining)
        if not (out / "result.json").exists():
            run("cavmae", "pretrain", "--config", "demo", "--objective", objective,
                "--shards", self.folder / "shards" / "train", "--seed", seed, "--out", out,
                *flags)  # fmt: skip
        return out

    def recall(self, checkpoint: Path) -> float:
        """R@10, mean of both directions."""
        found = self._measured("retrieve", "test", checkpoint)
        return mean(found[direction]["recall_at_10"] for direction in DIRECTIONS)

    def neighbours(self, checkpoint: Path, given: str) -> float:
        """Accuracy of k-NN."""
        asked = ("--val-shards", self.folder / "shards" / "test", "--modality", given)
        words = (*self.chosen, *asked, "--neighbours", 5)
        return self._measured("knn", "train", checkpoint, *words)["accuracy"]

    def finetuned(self, checkpoint: Path, given: str, seed: int) -> float:
        """Accuracy after training on two clips per class."""
        out = checkpoint.with_name(f"{checkpoint.name}-finetuned-{given}")
        shards = self.folder / "shards"
        if not (out / "result.json").exists():
            run("cavmae", "finetune", "--config", "few-labels", "--mode", _GIVEN[given],
                "--shards", shards / "train", "--split", f"few-{seed}",
                "--val-shards", shards / "test", "--init", checkpoint, "--seed", seed,
                "--out", out, *self.finetuning)  # fmt: skip
        return json.loads((out / "result.json").read_text())["validation"]["accuracy"]

    def _measured(self, command: str, split: str, checkpoint: Path, *words: object) -> Any:
        printed = run("cavmae", command, "--shards", self.folder / "shards" / split,
                      "--checkpoint", checkpoint, "--workers", 0, "--json", *words)  # fmt: skip
        return json.loads(printed)


def table(demo: Demo, seeds: range) -> Iterator[str]:
    """Markdown, a row at a time: each figure is of trained weights, then of random ones."""
    yield "| objective | given | R@10 | k-NN | finetuned on 2 labels per class |"
    yield "|---|---|---|---|---|"
    for objective, given in ROWS:
        found: dict[str, list[str]] = {"recall": [], "knn": [], "finetuned": []}
        for is_trained in (True, False):
            runs = {seed: demo.pretrained(objective, seed, is_trained) for seed in seeds}
            if objective in ("cav-mae", "cav") and given == "both":
                found["recall"].append(f"{mean(map(demo.recall, runs.values())):.1%}")
            by_neighbours = mean(demo.neighbours(each, given) for each in runs.values())
            found["knn"].append(f"{by_neighbours:.1%}")
            finetuned = mean(demo.finetuned(each, given, seed) for seed, each in runs.items())
            found["finetuned"].append(f"{finetuned:.1%}")
        cells = (" / ".join(values) or "–" for values in found.values())
        yield f"| `{objective}` | {given} | {' | '.join(cells)} |"


def main() -> None:
    """Train, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--work", type=Path, help="folder that keeps shards and runs")
    parser.add_argument("--seeds", type=int, default=3, choices=(1, 2, 3))
    parser.add_argument("--epochs", type=int, help="of pretraining, in place of the recipe's")
    parser.add_argument("--quick", action="store_true", help="48 clips, 1 epoch, 1 seed")
    arguments = parser.parse_args()
    seeds = range(1 if arguments.quick else arguments.seeds)
    with tempfile.TemporaryDirectory() as folder:
        demo = Demo(arguments.work or Path(folder), arguments.epochs, arguments.quick)
        lines = list(table(demo, seeds))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
