"""Run every benchmark and write one table of ratios.

    python benchmarks/run.py            # what `make bench` runs; half an hour on two idle cores
    python benchmarks/run.py --quick    # fewer clips and rounds; 6 minutes
    python benchmarks/run.py --only extract shard
    python benchmarks/run.py --peer video2dataset=~/peers/video2dataset/bin/python

Prints the table, and how long each benchmark took; then writes the table, with the machine, the
versions and the date, between the marks in README.md and docs/benchmarks.md. With --quick, with
--only or where a benchmark failed, it is only printed. The benchmarks run one after another,
because each needs the machine for itself; those that matter most come first.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import loader_peers
import peer_methods
from rows import Row, add_peer_option, read_rows

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
README = HERE.parent / "README.md"
BEGIN, END = "<!-- benchmarks -->", "<!-- /benchmarks -->"
SHOWN_VERSIONS = ("torch", "av", "opencv-python-headless", "pillow", "soundfile", "webdataset")

# What README shows: the beginning of a row, and what stands in it somewhere.
FIRST = (
    ("clip of 10 s, H.264 360p", "published method"), ("clip of 10 s, H.264 360p", "torchcodec"),
    ("clip of 10 s, H.264 360p", "video2dataset"),
    ("loading a sample of 10 s, FLAC", "published loader"),
    ("loading a sample of 10 s, FLAC", "one worker"),
    ("pretraining step", "ours, fp32, compiled"), ("retrieval, ranking 1,500", ""),
)  # fmt: skip

# Script and arguments, and those of `--quick`.
SCRIPTS: dict[str, tuple[list[str], list[str]]] = {
    "extract.py": ([], ["--quick"]),
    # Imports that take seconds drown what fewer clips cost.
    "peers.py": (["--clips", "17", "--rounds", "2"], ["--clips", "5", "--rounds", "1"]),
    "loader.py": ([], ["--quick"]),
    "model.py": ([], ["--model", "small", "--rounds", "1"]),
    "shard.py": ([], ["--quick"]),
    "archives.py": ([], ["--quick"]),
    "manifest.py": ([], ["--quick"]),
    "scaling.py": ([], ["--quick"]),
    "duplicates.py": ([], ["--quick"]),
    "report.py": ([], ["--quick"]),
    "quality.py": (["--clips", "200"], ["--clips", "40"]),
    "checkpoints.py": (["--rounds", "3"], ["--model", "small", "--rounds", "3"]),
    "retrieval.py": ([], ["--many", "5000", "--rounds", "1"]),
    "start_up.py": ([], ["--rounds", "3"]),
}

# The scripts that measure other tools, and which.
PEERS = {"peers.py": tuple(peer_methods.METHODS), "loader.py": loader_peers.TOOLS}


def run_script(script: str, arguments: list[str]) -> list[Row]:
    """The rows of one benchmark; its own output is shown.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.json"
        command = [sys.executable, "-u", str(HERE / script), *arguments, "--rows", str(rows)]
        print("$", " ".join(command), flush=True)
        subprocess.run(command, check=True)
        return read_rows(rows)


def machine() -> str:
    """One line on what the figures were measured with."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in SHOWN_VERSIONS)
    return (
        f"{datetime.date.today().isoformat()}, {os.cpu_count()} cores ({model}), "
        f"{memory:.0f} GiB, Python {platform.python_version()}, {versions}"
    )


def table(rows: dict[str, list[Row]], goals: bool) -> str:
    """Markdown, with or without the column of what was aimed at."""
    heads = ["what", "ours", "compared with", "ratio", *(["goal"] if goals else []), "script"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for script, of_script in rows.items():
        for row in of_script:
            goal = [row.goal] if goals else []
            cells = (row.what, row.ours, row.compared_with, row.ratio, *goal, f"`{script}`")
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def first(rows: dict[str, list[Row]]) -> dict[str, list[Row]]:
    """The rows that README shows."""

    def is_first(row: Row) -> bool:
        return any(
            row.what.startswith(begin) and part in f"{row.ours} {row.compared_with}"
            for begin, part in FIRST
        )

    return {script: [row for row in found if is_first(row)] for script, found in rows.items()}


def put_between_marks(page: Path, text: str) -> None:
    """Replace what stands between the marks of a page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{text}{END}{after}", encoding="utf-8")


def main() -> int:
    """Measure, print, write; 1 if a benchmark failed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="fewer clips and rounds; only printed")
    parser.add_argument("--only", nargs="+", choices=[name[:-3] for name in SCRIPTS],
                        help="just these, only printed")  # fmt: skip
    add_peer_option(parser, [tool for tools in PEERS.values() for tool in tools])
    arguments = parser.parse_args()
    chosen = [name for name in SCRIPTS if not arguments.only or name[:-3] in arguments.only]
    rows, failed, took = {}, [], {}
    for name in chosen:
        own = SCRIPTS[name][arguments.quick]
        peers = [f"--peer={tool}={python}" for tool, python in arguments.peer
                 if tool in PEERS.get(name, ())]  # fmt: skip
        began = time.monotonic()
        try:
            rows[name] = run_script(name, [*own, *peers])
        except subprocess.CalledProcessError as error:
            failed.append(f"{name} ended with {error.returncode}")
        took[name] = (time.monotonic() - began) / 60
        print(f"{name} took {took[name]:.1f} minutes\n", flush=True)
    measured = f"Measured {machine()}.\n"
    print(f"{table(rows, goals=True)}\n\n{measured}")
    minutes = ", ".join(f"{name} {spent:.1f}" for name, spent in took.items())
    print(f"{sum(took.values()):.0f} minutes: {minutes}")
    if failed:
        print("; ".join(failed), file=sys.stderr)
        return 1
    if not arguments.quick and not arguments.only:
        put_between_marks(PAGE, f"{table(rows, goals=True)}\n\n{measured}")
        put_between_marks(README, f"{table(first(rows), goals=False)}\n\n{measured}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
