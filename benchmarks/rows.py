"""What a benchmark hands to `benchmarks/run.py`: the rows of its part of the table."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One comparison of the table."""

    what: str  # "clip of 10 s, H.264 360p: CPU from file to shard"
    ours: str  # "230 ms"
    compared_with: str  # "published method, re-created: 1210 ms"; may be empty
    ratio: str  # ours over the other, or the other way round, so that it reads well: "1/5.3"
    goal: str = ""


def add_rows_option(parser: argparse.ArgumentParser) -> None:
    """`--rows FILE`."""
    parser.add_argument("--rows", type=Path, help="write the rows of `make bench` to this file")


def add_peer_option(parser: argparse.ArgumentParser, tools: Sequence[str]) -> None:
    """`--peer TOOL=PYTHON`, a list of (tool, interpreter)."""

    def pair(words: str) -> tuple[str, str]:
        tool, _, python = words.partition("=")
        if tool not in tools or not python:
            raise argparse.ArgumentTypeError(
                f"{words!r}: give one of {', '.join(tools)} and =PYTHON"
            )
        return tool, str(Path(python).expanduser())

    parser.add_argument("--peer", action="append", default=[], type=pair, metavar="TOOL=PYTHON",
                        help=f"interpreter that has {', '.join(tools)}")  # fmt: skip


def parser_of(doc: str | None, **sizes: tuple[int, int, str]) -> argparse.ArgumentParser:
    """A benchmark's options: `--quick`, `--rows FILE` and its sizes.

    Args:
        doc: its docstring.
        sizes: option → its value, its value with `--quick`, and what it counts.
    """
    is_quick = "--quick" in sys.argv
    parser = argparse.ArgumentParser(description=(doc or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="less of everything")
    for name, (usual, quick, what) in sizes.items():
        default, words = quick if is_quick else usual, f"{what} ({usual})"
        parser.add_argument(f"--{name}", type=int, default=default, help=words)
    add_rows_option(parser)
    return parser


def write_rows(path: Path | None, rows: Iterable[Row]) -> None:
    """Write rows for `read_rows`; nothing where the option was not given."""
    if path is not None:
        path.write_text(json.dumps([asdict(row) for row in rows]) + "\n", encoding="utf-8")


def read_rows(path: Path) -> list[Row]:
    """What `write_rows` wrote."""
    return [Row(**row) for row in json.loads(path.read_text(encoding="utf-8"))]


def part(ours: float, other: float) -> str:
    """How much less than the other: "1/5.3", or "1.25×" where it is more."""
    return f"1/{other / ours:.1f}" if ours < other else times(ours, other)


def times(ours: float, other: float) -> str:
    """How much more than the other: "1.25×"."""
    return f"{ours / other:.2f}×"
