"""How long `--help` takes, beside importing what the commands work with.

Every command's `--help` in a process of its own, wall time, medians; and `import torch`, which is
what it would cost at least if a command's module imported what its work needs.

    python benchmarks/start_up.py
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

from rows import Row, add_rows_option, part, write_rows

COMMANDS = (
    ("avprep", "--help"),
    ("avprep", "shard", "--help"),
    ("avprep", "manifest", "audioset", "--help"),
    ("cavmae", "--help"),
    ("cavmae", "pretrain", "--help"),
)
LIMIT = 0.25  # seconds


def wall(command: list[str], rounds: int) -> float:
    """Median seconds of a process."""
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=7)
    add_rows_option(parser)
    arguments = parser.parse_args()
    torch = wall([sys.executable, "-c", "import torch"], 3)
    print(f"import torch: {torch:.2f} s")
    rows = []
    for words in COMMANDS:
        seconds = wall([sys.executable, "-m", *words], arguments.rounds)
        print(f"{' '.join(words)}: {seconds:.3f} s (goal ≤ {LIMIT} s)")
        rows.append(
            Row(f"`{' '.join(words)}`", f"{seconds * 1000:.0f} ms",
                f"`import torch`: {torch * 1000:.0f} ms", part(seconds, torch),
                f"≤ {LIMIT * 1000:.0f} ms")
        )  # fmt: skip
    write_rows(arguments.rows, rows)


if __name__ == "__main__":
    main()
