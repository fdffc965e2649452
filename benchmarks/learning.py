"""What training is worth on 1,000 real clips: GRID, one speaker, not part of the project.

Each clip is a sentence of a fixed form; its last word, command and colour are one of four each.
Every model is a tiny one of the recipe `small-set`, and every figure is the accuracy on 172 clips
of sentences that no training saw, by the weights after the last epoch and the middle frames:

- all labels: trained from scratch on 828 clips, from sound alone and from sound and picture;
- few labels: trained on 20 clips per class, from weights that were pretrained on the 828 clips
  without labels, and from scratch; the mean of three seeds, which draw other clips;
- frozen: the neighbours of a clip among the 828, for the pretrained and for random weights.

    python benchmarks/learning.py                    # half an hour on two cores
    python benchmarks/learning.py --parts few-labels
    python benchmarks/learning.py --quick            # one epoch and one seed of each: does it run?
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import mean

GRID = Path(__file__).resolve().parents[2] / "shared" / "grid"
TARGETS = {"last word": "adverb", "command": "command", "colour": "colour"}
MODES = {"sound": "audioonly", "sound and picture": "multimodal"}
PARTS = ("all-labels", "few-labels")
FEW = 20  # labelled clips per class
SEEDS = (0, 1, 2)
PRETRAINING_EPOCHS = 40  # of 828 clips; the recipe's 100 are for fewer
PRETRAINED_ON = (*(f"few-{seed}" for seed in SEEDS), "rest")  # splits of the training clips


def run(*words: object) -> str:
    """The last line that a command of the project prints."""
    command = [sys.executable, "-m", *map(str, words)]
    print("$", *map(str, words), flush=True)
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return printed.strip().splitlines()[-1]


def splits(flag: str, names: tuple[str, ...]) -> list[str]:
    """The flag once for each name."""
    return [word for name in names for word in (flag, name)]


class Grid:
    """Shard sets and training runs in a folder."""

    def __init__(self, grid: Path, folder: Path, quick: bool) -> None:
        self.grid = grid
        self.folder = folder
        self.shortened = ("--epochs", 1) if quick else ()
        self.seeds = SEEDS[:1] if quick else SEEDS
        if not (folder / "extracted").exists():
            run("avprep", "extract", grid / "videos", "--out", folder / "extracted")

    def shards(self, column: str) -> Path:
        """The clips with this column's words as labels; made when first asked for."""
        shards = self.folder / "shards" / column
        if not (shards / "dataset.json").exists():
            segments, manifest = (self.folder / f"{column}.{kind}" for kind in ("csv", "json"))
            with (self.grid / "words.csv").open() as words, segments.open("w") as file:
                writer = csv.writer(file)
                writer.writerow(("path", "label", "split"))
                writer.writerows(labelled(csv.DictReader(words), column))
            folder = ("--extracted", self.folder / "extracted")
            run("avprep", "manifest", "folder", self.grid, "--csv", segments, *folder,
                "--out", manifest)  # fmt: skip
            run("avprep", "shard", manifest, "--out", shards)
            run("cavmae", "stats", shards, *splits("--split", PRETRAINED_ON))
        return shards

    def pretrained(self, name: str, *flags: object) -> Path:
        """A run on the training clips; labels play no part."""
        out, shards = self.folder / name, self.shards("adverb")
        run("cavmae", "pretrain", "--config", "small-set", "--out", out,
            "--shards", shards, *splits("--split", PRETRAINED_ON),
            "--val-shards", shards, "--val-split", "test",
            *(flags or self.shortened or ("--epochs", PRETRAINING_EPOCHS)))  # fmt: skip
        return out

    def neighbours(self, checkpoint: Path) -> float:
        """Accuracy of k-NN with the last word of all training clips."""
        shards = self.shards("adverb")
        found = run("cavmae", "knn", "--checkpoint", checkpoint, "--json",
                    "--shards", shards, *splits("--split", PRETRAINED_ON),
                    "--val-shards", shards, "--val-split", "test")  # fmt: skip
        return json.loads(found)["accuracy"]

    def finetuned(
        self, name: str, column: str, mode: str, chosen: tuple[str, ...], *flags: object
    ) -> float:
        """Accuracy on the test clips after training on the clips of the chosen splits."""
        out, shards = self.folder / name, self.shards(column)
        run("cavmae", "finetune", "--config", "small-set", "--mode", mode, "--out", out,
            "--shards", shards, *splits("--split", chosen),
            "--val-shards", shards, "--val-split", "test", *flags, *self.shortened)  # fmt: skip
        return json.loads((out / "result.json").read_text())["validation"]["accuracy"]


def labelled(rows: Iterable[dict[str, str]], column: str) -> Iterator[tuple[str, str, str]]:
    """(path, label, split) of each clip; 20 training clips per class are few-0, others few-1 …"""
    seen: dict[str, int] = {}
    for row in sorted(rows, key=lambda row: hashlib.sha256(row["path"].encode()).digest()):
        number = seen.get(row[column], 0)
        split = row["split"]
        if split == "train":
            seen[row[column]] = number + 1
            split = f"few-{number // FEW}" if number < FEW * len(SEEDS) else "rest"
        yield row["path"], row[column], split


def all_labels(grid: Grid) -> Iterator[str]:
    """Lines of the table."""
    yield f"{'all labels, from scratch':28}" + "".join(f"{name:>20}" for name in MODES)
    for target, column in TARGETS.items():
        found = [
            grid.finetuned(f"{column}-{mode}", column, mode, PRETRAINED_ON)
            for mode in MODES.values()
        ]
        yield f"{target:28}" + "".join(f"{accuracy:20.1%}" for accuracy in found)


def few_labels(grid: Grid) -> Iterator[str]:
    """Lines of the table."""
    pretrained = grid.pretrained("pretrained")
    random_start = grid.pretrained("random-start", "--epochs", 1, "--lr", 0)
    yield f"{'last word':28}{'pretrained':>20}{'without':>20}"
    for modality, mode in MODES.items():
        starts = {"pretrained": ("--init", pretrained), "scratch": ()}
        found = {
            start: [
                grid.finetuned(
                    f"{start}-{mode}-{seed}", "adverb", mode, (f"few-{seed}",),
                    *("--seed", seed, *init),
                )
                for seed in grid.seeds
            ]
            for start, init in starts.items()
        }  # fmt: skip
        yield f"{f'{FEW} labels, {modality}':28}" + "".join(
            f"{mean(accuracies):20.1%}" for accuracies in found.values()
        )
    knn = (grid.neighbours(pretrained), grid.neighbours(random_start))
    yield f"{'k-NN of frozen features':28}" + "".join(f"{accuracy:20.1%}" for accuracy in knn)


def main() -> None:
    """Train, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--grid", type=Path, default=GRID, help="folder of words.csv and videos/")
    parser.add_argument("--work", type=Path, help="folder that keeps shards and runs")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--quick", action="store_true", help="one epoch and one seed of each")
    arguments = parser.parse_args()
    if not (arguments.grid / "words.csv").is_file():
        print(f"skipped: {arguments.grid} is not there")
        return
    with tempfile.TemporaryDirectory() as folder:
        grid = Grid(arguments.grid, arguments.work or Path(folder), arguments.quick)
        parts = {"all-labels": all_labels, "few-labels": few_labels}
        table = [line for part in arguments.parts for line in parts[part](grid)]
    print("\n".join(table))


if __name__ == "__main__":
    main()
