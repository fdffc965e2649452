"""The demo: every command of `pipelines/demo/commands.sh` in turn, timed, and a summary."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from avprep import storage
from cavmae.recipes import recipes_folder

_OUT_IN_SCRIPT = "runs/demo"


def run_demo(out: str) -> int:
    """Run all stages; returns the exit code of the first command that fails, else 0."""
    folder = Path(out)
    seconds: dict[str, float] = {}
    printed: dict[str, str] = {}
    for stage, command in demo_commands(out):
        print(f"\n\033[1m[{stage}]\033[0m $ {command}" if sys.stdout.isatty() else f"\n$ {command}")
        sys.stdout.flush()
        started = time.monotonic()
        status, output = _run(command)
        seconds[stage] = seconds.get(stage, 0.0) + time.monotonic() - started
        printed[command] = output
        if status:
            print(f"demo: the command above ended with exit code {status}", file=sys.stderr)
            return status
    summary = _summarise(folder, seconds, printed)
    storage.write_json(folder / "summary.json", summary)
    _print_summary(folder, summary)
    return 0


def demo_commands(out: str) -> list[tuple[str, str]]:
    """(stage, command) of every command; a comment of one word names the stage."""
    script = (recipes_folder() / "demo" / "commands.sh").read_text(encoding="utf-8")
    stage, commands = "", []
    for line in script.splitlines():
        words = line.split()
        if words[:1] == ["#"]:
            stage = words[1] if len(words) == 2 else stage
        elif words:
            places = (
                out + word.removeprefix(_OUT_IN_SCRIPT) if word.startswith(_OUT_IN_SCRIPT) else word
                for word in words
            )
            commands.append((stage, shlex.join(places)))
    return commands


def _run(command: str) -> tuple[int, str]:
    """Run one command with this interpreter; returns (exit code, output), which is shown, too."""
    lines = []
    with subprocess.Popen(
        [sys.executable, "-m", *shlex.split(command)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    return process.returncode, "".join(lines)


def _summarise(out: Path, seconds: dict[str, float], printed: dict[str, str]) -> dict[str, Any]:
    """What this run measured."""
    pretrained, from_scratch = (
        json.loads(output.strip().splitlines()[-1])
        for command, output in printed.items()
        if command.startswith("cavmae eval")
    )
    failures = {
        split: json.loads((out / "shards" / split / "dataset.json").read_text())["failures"]
        for split in ("train", "test")
    }
    retrieval, inpainting = (
        json.loads((out / name).read_text())
        for name in ("retrieval/retrieval.json", "inpaint/inpaint.json")
    )
    return {
        "test_accuracy": pretrained["accuracy"],
        "test_map": pretrained["map"],
        "from_scratch_accuracy": from_scratch["accuracy"],
        "from_scratch_map": from_scratch["map"],
        "retrieval": {
            name: retrieval[name] for name in ("audio_to_image", "image_to_audio", "clips")
        },
        "inpainting": f"{out}/inpaint/{inpainting['clips'][0]['file']}",
        "failed_clips": sum(sum(causes.values()) for causes in failures.values()),
        "failures": failures,
        "seconds": {
            **{stage: round(value, 1) for stage, value in seconds.items()},
            "total": round(sum(seconds.values()), 1),
        },
    }


def _print_summary(out: Path, summary: dict[str, Any]) -> None:
    """Where everything lies, and the figures."""
    scratch = f"from scratch {summary['from_scratch_accuracy']:.1%}, chance 12.5%"
    recalls = ", ".join(
        f"{name.replace('_to_', ' → ')} {summary['retrieval'][name]['recall_at_10']:.1%}"
        for name in ("audio_to_image", "image_to_audio")
    )
    chance = f"chance {10 / summary['retrieval']['clips']:.1%}"
    failed = f"{summary['failed_clips']} (two files are broken on purpose)"
    for title, value in (
        ("test accuracy", f"{summary['test_accuracy']:.1%} ({scratch})"),
        ("test mAP", f"{summary['test_map']:.3f}"),
        ("retrieval R@10", f"{recalls} ({chance}), see {out}/retrieval/retrieval.html"),
        ("inpainting", summary["inpainting"]),
        ("failed clips", f"{failed}, see {out}/shards/train/failures.csv"),
        ("seconds", summary["seconds"]["total"]),
        ("shards", f"{out}/shards/train, {out}/shards/test"),
        ("loss curves", f"{out}/pretrain/curves.png, {out}/finetune/curves.png"),
        ("metrics", f"{out}/finetune/result.json"),
        ("summary", f"{out}/summary.json"),
    ):
        print(f"{title:15} {value}")
