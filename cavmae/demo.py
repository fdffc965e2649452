"""The demo: every command of `pipelines/demo/commands.sh` in turn, timed, and a summary."""

from __future__ import annotations

import json
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from avprep import storage
from avprep.errors import WorkFailed
from cavmae.recipes import recipes_folder

_OUT_IN_SCRIPT = "runs/demo"
DIRECTIONS = ("audio_to_image", "image_to_audio")
_SEEDS = (0, 1, 2)  # of training with few labels


@dataclass
class Cost:
    """Of a stage's commands and all processes they started."""

    wall: float = 0.0  # seconds
    cpu: float = 0.0  # seconds of one core


class CommandFailed(WorkFailed):
    """A command of the demo ended with another exit code than 0."""

    def __init__(self, command: str, status: int) -> None:
        super().__init__(f"`{command}` ended with exit code {status}")
        self.status = status


def run_demo(
    out: str,
    on_command: Callable[[str, str], None] = lambda stage, command: None,
    on_line: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Run all stages in processes of their own; what they measured is OUT/summary.json as well.

    Args:
        out: the folder for everything.
        on_command: called with a stage and a command before it runs.
        on_line: called with each line that a command prints.

    Raises:
        CommandFailed: a command failed; the ones after it were not run.
    """
    folder = Path(out)
    costs: dict[str, Cost] = {}
    printed: dict[str, str] = {}
    for stage, command in demo_commands(out):
        on_command(stage, command)
        cost = costs.setdefault(stage, Cost())
        status, printed[command] = _run(command, cost, on_line)
        if status:
            raise CommandFailed(command, status)
    summary = _summarise(folder, costs, printed)
    storage.write_json(folder / "summary.json", summary)
    return summary


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


def _run(command: str, cost: Cost, on_line: Callable[[str], None]) -> tuple[int, str]:
    """Run one command with this interpreter; returns (exit code, output)."""
    lines = []
    started, used = time.monotonic(), _cpu_seconds_of_children()
    with subprocess.Popen(
        [sys.executable, "-m", *shlex.split(command)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            on_line(line)
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

    def last_line(command: str) -> dict[str, Any]:
        (output,) = (text for name, text in printed.items() if name.startswith(command))
        return json.loads(output.strip().splitlines()[-1])

    evaluated = last_line("cavmae eval")
    chance = 1 / len(read("shards/test/dataset.json")["labels"])
    from_scratch = [
        read(f"few-labels-from-scratch-{seed}/result.json")["validation"]["accuracy"]
        for seed in _SEEDS
    ]
    failures = {
        split: read(f"shards/{split}/dataset.json")["failures"] for split in ("train", "test")
    }
    return {
        "retrieval": _retrieved(
            read("retrieval/retrieval.json"), read("retrieval-random-start/retrieval.json")
        ),
        **_probed(last_line("cavmae probe")["models"], from_scratch, chance),
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


def _retrieved(found: dict[str, Any], at_random: dict[str, Any]) -> dict[str, Any]:
    """Retrieval by the pretrained model, beside that by random weights."""
    return {
        "clips": found["clips"],
        "chance_recall_at_10": min(10 / found["clips"], 1.0),
        **{name: found[name] for name in DIRECTIONS},
        "random_start": {name: at_random[name] for name in DIRECTIONS},
    }


def _probed(
    models: Sequence[dict[str, Any]], from_scratch: Sequence[float], chance: float
) -> dict[str, Any]:
    """What features are worth, beside those of random weights and training from scratch.

    Args:
        models: the rows of `cavmae probe`.
        from_scratch: accuracy of training on the few labels alone, by split.
        chance: accuracy of guessing.
    """
    pretrained, untrained = (
        [row for row in models if row["random"] == is_random] for is_random in (False, True)
    )
    probe, probe_of_random = (
        [row["linear"]["accuracy"] for row in rows if row["label_split"]]
        for rows in (pretrained, untrained)
    )
    return {
        "knn": {
            "accuracy": pretrained[0]["neighbours"]["accuracy"],
            "random_start": untrained[0]["neighbours"]["accuracy"],
            "chance": chance,
        },
        "few_labels": {
            "labels_per_class": 2,
            "probe": mean(probe),
            "probe_of_random_start": mean(probe_of_random),
            "from_scratch": mean(from_scratch),
            "chance": chance,
            "probe_by_split": probe,
            "from_scratch_by_split": from_scratch,
        },
    }


def _with_total(seconds: dict[str, float]) -> dict[str, float]:
    return {
        name: round(value, 1) for name, value in {**seconds, "total": sum(seconds.values())}.items()
    }
