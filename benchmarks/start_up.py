"""How long `--help` takes, compared with importing what the commands work with.

Some commands' `--help` in processes of their own, wall time, medians, in turn with `import torch`,
which is what it would cost at least if a command's module imported what its work needs.

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


def wall(*words: str) -> float:
    """Seconds of a process of this Python."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
    return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=7)
    add_rows_option(parser)
    arguments = parser.parse_args()
    importing: list[float] = []
    helping: dict[tuple[str, ...], list[float]] = {words: [] for words in COMMANDS}
    for _ in range(arguments.rounds):
        importing.append(wall("-c", "import torch"))
        for words, seconds in helping.items():
            seconds.append(wall("-m", *words))
    torch = statistics.median(importing)
    print(f"import torch: {torch:.2f} s")
    medians = {" ".join(words): statistics.median(seconds) for words, seconds in helping.items()}
    for command, median in medians.items():
        print(f"{command}: {median:.3f} s (goal ≤ {LIMIT} s)")
    slowest, median = max(medians.items(), key=lambda item: item[1])
    row = Row(
        f"`{slowest}`, the slowest of {len(COMMANDS)}",
        f"{median * 1000:.0f} ms",
        f"`import torch`: {torch * 1000:.0f} ms",
        part(median, torch),
        f"≤ {LIMIT * 1000:.0f} ms",
    )
    write_rows(arguments.rows, [row])


if __name__ == "__main__":
    main()
