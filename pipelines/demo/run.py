"""Run the demo: every command of commands.sh in turn, timed, and a summary at the end.

    python pipelines/demo/run.py

Leaves runs/demo/summary.json. An interrupted demo goes on where it was when run again.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
COMMANDS = Path(__file__).with_name("commands.sh")
RUN = REPOSITORY / "runs" / "demo"


def main() -> int:
    """Run all stages; returns the exit code of the first command that fails, else 0."""
    seconds: dict[str, float] = {}
    printed: dict[str, str] = {}
    for stage, command in read_commands(COMMANDS.read_text()):
        print(f"\n\033[1m[{stage}]\033[0m $ {command}" if sys.stdout.isatty() else f"\n$ {command}")
        sys.stdout.flush()
        started = time.monotonic()
        status, output = run(command)
        seconds[stage] = seconds.get(stage, 0.0) + time.monotonic() - started
        printed[command] = output
        if status:
            print(f"demo: the command above ended with exit code {status}", file=sys.stderr)
            return status
    summary = summarise(seconds, printed)
    (RUN / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    print_summary(summary)
    return 0


def read_commands(script: str) -> list[tuple[str, str]]:
    """(stage, command) of every command; a one-word comment line names the stage."""
    stage, commands = "", []
    for line in script.splitlines():
        words = line.split()
        if words[:1] == ["#"]:
            stage = words[1] if len(words) == 2 else stage
        elif words:
            commands.append((stage, line))
    return commands


def run(command: str) -> tuple[int, str]:
    """Run one command with this interpreter's environment; its output is shown and returned."""
    program, *arguments = shlex.split(command)
    executable = Path(sys.executable).with_name(program)
    lines = []
    with subprocess.Popen(
        [str(executable), *arguments], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    return process.returncode, "".join(lines)


def summarise(seconds: dict[str, float], printed: dict[str, str]) -> dict[str, Any]:
    """What this run measured."""
    pretrained, from_scratch = (
        json.loads(output.strip().splitlines()[-1])
        for command, output in printed.items()
        if command.startswith("cavmae eval")
    )
    failures = {
        split: json.loads((RUN / "shards" / split / "dataset.json").read_text())["failures"]
        for split in ("train", "test")
    }
    retrieval, inpainting = (
        json.loads((RUN / name).read_text())
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
        "inpainting": f"runs/demo/inpaint/{inpainting['clips'][0]['file']}",
        "failed_clips": sum(sum(causes.values()) for causes in failures.values()),
        "failures": failures,
        "seconds": {
            **{stage: round(value, 1) for stage, value in seconds.items()},
            "total": round(sum(seconds.values()), 1),
        },
    }


def print_summary(summary: dict[str, Any]) -> None:
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
        ("retrieval R@10", f"{recalls} ({chance}), see runs/demo/retrieval/retrieval.html"),
        ("inpainting", summary["inpainting"]),
        ("failed clips", f"{failed}, see runs/demo/shards/train/failures.csv"),
        ("seconds", summary["seconds"]["total"]),
        ("shards", "runs/demo/shards/train, runs/demo/shards/test"),
        ("loss curves", "runs/demo/pretrain/curves.png, runs/demo/finetune/curves.png"),
        ("metrics", "runs/demo/finetune/result.json"),
        ("summary", "runs/demo/summary.json"),
    ):
        print(f"{title:15} {value}")


if __name__ == "__main__":
    sys.exit(main())
