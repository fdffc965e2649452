"""Run every benchmark and write one table of ratios.

    python benchmarks/run.py            # what `make bench` runs; half an hour on two cores
    python benchmarks/run.py --quick    # fewer clips and rounds
    python benchmarks/run.py --only extract shard

Writes the table, with the machine, the versions and the date, to docs/benchmarks.md and between
the marks in README.md; with --only, just prints it. The benchmarks run one after another, because
each wants the machine for itself.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from rows import Row, read_rows

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
README = HERE.parent / "README.md"
BEGIN, END = "<!-- benchmarks -->", "<!-- /benchmarks -->"
SHOWN_VERSIONS = ("torch", "av", "opencv-python-headless", "pillow", "soundfile", "webdataset")

# Script and arguments; `quick` replaces the arguments where the whole takes minutes.
SCRIPTS: dict[str, tuple[list[str], list[str]]] = {
    "extract.py": ([], ["--quick"]),
    "peers.py": ([], ["--clips", "5", "--rounds", "1"]),
    "shard.py": ([], []),
    "manifest.py": ([], ["--clips", "100000"]),
    "report.py": ([], ["--clips", "100000"]),
    "scaling.py": ([], []),
    "loader.py": ([], ["--rounds", "3", "--memory-epochs", "5"]),
    "model.py": ([], ["--rounds", "1"]),
    "retrieval.py": ([], []),
    "start_up.py": ([], []),
}

_HEAD = """\
# How we measure

Every claim of speed is a ratio, measured side by side in one run by a script in `benchmarks/` that
anyone can run again; `make bench` runs them all and writes this table. Costs are CPU time where
that is what a user pays for, medians over interleaved rounds, so that a busy machine slows both
sides alike. What other tools do is done by those tools where they can be installed, and by a
re-creation of the published scripts otherwise.
"""


def run_script(script: str, arguments: list[str]) -> list[Row]:
    """The rows of one benchmark; its own output is shown.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.json"
        command = [sys.executable, str(HERE / script), *arguments, "--rows", str(rows)]
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


def table(rows: dict[str, list[Row]]) -> str:
    """Markdown."""
    lines = [
        "| what | ours | beside | ratio | goal | script |",
        "|---|---|---|---|---|---|",
    ]
    for script, of_script in rows.items():
        for row in of_script:
            cells = (row.what, row.ours, row.beside, row.ratio, row.goal, f"`{script}`")
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="fewer clips and rounds")
    parser.add_argument("--only", nargs="+", choices=[name[:-3] for name in SCRIPTS],
                        help="just these, printed and not written")  # fmt: skip
    arguments = parser.parse_args()
    chosen = [name for name in SCRIPTS if not arguments.only or name[:-3] in arguments.only]
    rows = {name: run_script(name, SCRIPTS[name][arguments.quick]) for name in chosen}
    text = f"{table(rows)}\n\nMeasured {machine()}.\n"
    print(f"\n{text}")
    if not arguments.only:
        PAGE.write_text(f"{_HEAD}\n{text}", encoding="utf-8")
        readme = README.read_text(encoding="utf-8")
        before, _, rest = readme.partition(BEGIN)
        _, _, after = rest.partition(END)
        README.write_text(f"{before}{BEGIN}\n{text}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
