"""The demo: every command of `pipelines/demo/commands.sh` in turn, timed, and a summary."""

from __future__ import annotations

import json
import resource
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from avprep import storage
from cavmae.recipes import recipes_folder

_OUT_IN_SCRIPT = "runs/demo"
_DIRECTIONS = ("audio_to_image", "image_to_audio")
_SEEDS = (0, 1, 2)  # of finetuning with few labels


@dataclass
class Cost:
    """Of a stage's commands and all processes they started."""

    wall: float = 0.0  # seconds
    cpu: float = 0.0  # seconds of one core


def run_demo(out: str) -> int:
    """Run all stages; returns the exit code of the first command that fails, else 0."""
    folder = Path(out)
    costs: dict[str, Cost] = {}
    printed: dict[str, str] = {}
    for stage, command in demo_commands(out):
        print(f"\n\033[1m[{stage}]\033[0m $ {command}" if sys.stdout.isatty() else f"\n$ {command}")
        sys.stdout.flush()
        status, printed[command] = _run(command, costs.setdefault(stage, Cost()))
        if status:
            print(f"demo: the command above ended with exit code {status}", file=sys.stderr)
            return status
    summary = _summarise(folder, costs, printed)
    storage.write_json(folder / "summary.json", summary)
    _print_summary(folder, summary)
    return 0


def demo_commands(out: str) -> list[tuple[str, str]]:
    """(stage, command) of every command; a comment's first word names the stage."""
    script = (recipes_folder() / "demo" / "commands.sh").read_text(encoding="utf-8")
    introduction, *stages = script.split("\n\n")
    assert introduction.startswith("#")
    commands = []
    for lines in map(str.splitlines, stages):
        stage = lines[0].split()[1]
        for line in lines[1:]:
            places = (
                out + word.removeprefix(_OUT_IN_SCRIPT) if word.startswith(_OUT_IN_SCRIPT) else word
                for word in shlex.split(line)
            )
            commands.append((stage, shlex.join(places)))
    return commands


def _run(command: str, cost: Cost) -> tuple[int, str]:
    """Run one command with this interpreter; returns (exit code, output), which is shown, too."""
    lines = []
    started, used = time.monotonic(), _cpu_seconds_of_children()
    with subprocess.Popen(
        [sys.executable, "-m", *shlex.split(command)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    cost.wall += time.monotonic() - started
    cost.cpu += _cpu_seconds_of_children() - used
    return process.returncode, "".join(lines)


def _cpu_seconds_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _summarise(out: Path, costs: dict[str, Cost], printed: dict[str, str]) -> dict[str, Any]:
    """What this run measured, each figure beside its baselines."""

    def read(name: str) -> dict[str, Any]:
        return json.loads((out / name).read_text())

    def last_lines(command: str) -> list[dict[str, Any]]:
        outputs = [text for name, text in printed.items() if name.startswith(command)]
        return [json.loads(text.strip().splitlines()[-1]) for text in outputs]

    (evaluated,) = last_lines("cavmae eval")
    knn, knn_at_random = last_lines("cavmae knn")
    retrieval, at_random = (
        read("retrieval/retrieval.json"),
        read("retrieval-random-start/retrieval.json"),
    )
    test = read("shards/test/dataset.json")
    chance = 1 / len(test["labels"])
    few = {
        name: [read(f"{name}-{seed}/result.json")["validation"]["accuracy"] for seed in _SEEDS]
        for name in ("few-labels", "few-labels-from-scratch")
    }
    failures = {
        split: read(f"shards/{split}/dataset.json")["failures"] for split in ("train", "test")
    }
    return {
        "retrieval": {
            "clips": retrieval["clips"],
            "chance_recall_at_10": min(10 / retrieval["clips"], 1.0),
            **{name: retrieval[name] for name in _DIRECTIONS},
            "random_start": {name: at_random[name] for name in _DIRECTIONS},
        },
        "knn": {
            "accuracy": knn["accuracy"],
            "random_start": knn_at_random["accuracy"],
            "chance": chance,
        },
        "few_labels": {
            "labels_per_class": 2,
            "accuracy": mean(few["few-labels"]),
            "from_scratch": mean(few["few-labels-from-scratch"]),
            "chance": chance,
            "accuracy_by_seed": few["few-labels"],
            "from_scratch_by_seed": few["few-labels-from-scratch"],
        },
        "all_labels": {
            "accuracy": evaluated["accuracy"],
            "map": evaluated["map"],
            "chance": chance,
        },
        "inpainting": [
            f"{out}/inpaint/{clip['file']}" for clip in read("inpaint/inpaint.json")["clips"]
        ],
        "failed_clips": sum(sum(causes.values()) for causes in failures.values()),
        "failures": failures,
        "seconds": _with_total({stage: cost.wall for stage, cost in costs.items()}),
        "cpu_seconds": _with_total({stage: cost.cpu for stage, cost in costs.items()}),
        "largest_process_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024,
    }


def _with_total(seconds: dict[str, float]) -> dict[str, float]:
    return {
        name: round(value, 1) for name, value in {**seconds, "total": sum(seconds.values())}.items()
    }


def _print_summary(out: Path, summary: dict[str, Any]) -> None:
    """The figures beside their baselines, and where everything lies."""
    retrieval, knn, few = summary["retrieval"], summary["knn"], summary["few_labels"]
    print(f"\n{'on clips never seen':34}{'pretrained':>12}{'without':>12}{'chance':>12}")
    rows = [
        (
            f"retrieval R@10, {name.replace('_to_', ' → ')}",
            retrieval[name]["recall_at_10"],
            retrieval["random_start"][name]["recall_at_10"],
            retrieval["chance_recall_at_10"],
        )
        for name in _DIRECTIONS
    ]
    rows += [
        ("k-NN accuracy, frozen features", knn["accuracy"], knn["random_start"], knn["chance"]),
        ("finetuned, 2 labels per class", few["accuracy"], few["from_scratch"], few["chance"]),
    ]
    for title, *figures in rows:
        print(f"{title:34}" + "".join(f"{figure:12.1%}" for figure in figures))
    every = summary["all_labels"]
    print(f"{'finetuned, all labels':34}{every['accuracy']:12.1%}{'':12}{every['chance']:12.1%}\n")
    seconds, cpu = summary["seconds"]["total"], summary["cpu_seconds"]["total"]
    failed = f"{summary['failed_clips']} (two files are broken on purpose)"
    for title, value in (
        ("time", f"{seconds:.0f} s, {cpu:.0f} CPU-seconds"),
        ("memory", f"{summary['largest_process_mb']} MB, the largest process"),
        ("failed clips", f"{failed}, see {out}/shards/train/failures.csv"),
        ("retrieval", f"{out}/retrieval/retrieval.html"),
        ("inpainting", ", ".join(summary["inpainting"])),
        ("loss curves", f"{out}/pretrain/curves.png, {out}/finetune/curves.png"),
        ("shards", f"{out}/shards/train, {out}/shards/test"),
        ("summary", f"{out}/summary.json"),
    ):
        print(f"{title:15} {value}")
