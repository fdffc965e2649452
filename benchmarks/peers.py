"""How much CPU a clip costs from file to shard, beside the other tools that people use.

Makes clips of 10 s on the spot and packs the same files with `avprep shard` and with each of the
tools in `benchmarks/peer_methods.py`: an ffmpeg loop, decord, torchcodec, video2dataset. A tool
that is not installed is left out, and said to be. Each runs in a process of its own, with one
worker; what a clip costs is the CPU time of a run over all clips less that of a run over one.

    python benchmarks/peers.py
    python benchmarks/peers.py --peer video2dataset=~/peers/video2dataset/bin/python
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from extract import KINDS, Kind, linked_clips, make_clip
from peer_methods import METHODS
from rows import Row, add_peer_option, add_rows_option, part, write_rows

SCRIPT = Path(__file__).with_name("peer_methods.py")
MEASURED_KINDS = KINDS[:2]  # H.264 at 360p and 720p


@dataclass
class Cost:
    """Milliseconds per clip of each round."""

    tool: str = "avprep"  # with its version
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    def medians(self) -> tuple[float, float]:
        return statistics.median(self.cpu), statistics.median(self.wall)


def run(method: str, python: str, videos: Path) -> tuple[float, float, str]:
    """(CPU, wall) seconds of packing all videos of a folder, and the last line printed.

    Raises:
        subprocess.CalledProcessError: the tool failed; its last words are in `stderr`.
    """
    with tempfile.TemporaryDirectory() as out:
        if method == "ours":
            manifest = f"{out}/manifest.json"
            commands = [
                [python, "-m", "avprep", "manifest", "folder", str(videos), "--out", manifest],
                [python, "-m", "avprep", "shard", manifest, "--out", f"{out}/s", "--workers", "1",
                 "--samples-per-shard", "1000"],  # one shard, as the others write
            ]  # fmt: skip
        else:
            commands = [[python, str(SCRIPT), method, str(videos), out]]
        before, began = _children_seconds(), time.perf_counter()
        for command in commands:
            # One thread per tool: what is compared is work, not cores.
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            result = subprocess.run(
                command, check=True, capture_output=True, text=True, env=environment
            )
        cpu, wall = _children_seconds() - before, time.perf_counter() - began
    return cpu, wall, result.stdout.strip().rpartition("\n")[2]


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(
    kind: Kind, folder: Path, pythons: dict[str, str], clips: int, rounds: int
) -> tuple[dict[str, Cost], dict[str, str]]:
    """Costs by method, and why the others have none."""
    original = make_clip(folder / f"original.{kind.suffix}", kind)
    one, all_of_them = folder / "one", folder / "all"
    linked_clips(original, one, 1)
    linked_clips(original, all_of_them, clips)
    costs: dict[str, Cost] = {method: Cost() for method in pythons}
    missing: dict[str, str] = {}
    for _ in range(rounds):
        for method, python in pythons.items():
            if method in missing:
                continue
            try:
                few, many = run(method, python, one), run(method, python, all_of_them)
            except subprocess.CalledProcessError as error:
                missing[method] = (error.stderr.strip().splitlines() or ["no message"])[-1]
                continue
            costs[method].cpu.append((many[0] - few[0]) / (clips - 1) * 1000)
            costs[method].wall.append((many[1] - few[1]) / (clips - 1) * 1000)
            if method != "ours":
                costs[method].tool = many[2]
    return {name: cost for name, cost in costs.items() if name not in missing}, missing


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--clips", type=int, default=7)
    parser.add_argument("--rounds", type=int, default=3)
    add_peer_option(parser, tuple(METHODS))
    add_rows_option(parser)
    arguments = parser.parse_args()
    pythons = dict.fromkeys(("ours", *METHODS), sys.executable) | dict(arguments.peer)
    rows: list[Row] = []
    print("| clips | tool | CPU ms per clip | wall ms | CPU, times ours |\n|---|---|---|---|---|")
    for kind in MEASURED_KINDS:
        with tempfile.TemporaryDirectory() as name:
            costs, missing = measure(kind, Path(name), pythons, arguments.clips, arguments.rounds)
        ours, _ = costs["ours"].medians()
        what = f"clip of 10 s, {kind.name}, CPU from file to shard"
        for method, reason in missing.items():
            print(f"Left out: {method} ({reason})")
            rows.append(Row(what, f"{ours:.0f} ms", f"{method}: not measured, see the script", ""))
        for method, cost in costs.items():
            cpu, wall = cost.medians()
            print(f"| {kind.name} | {cost.tool} | {cpu:.0f} | {wall:.0f} | {cpu / ours:.2f} |")
            if method != "ours":
                names = f"{cost.tool} in a loop" if method == "ffmpeg-loop" else cost.tool
                rows.append(Row(what, f"{ours:.0f} ms", f"{names}: {cpu:.0f} ms", part(ours, cpu)))
    write_rows(arguments.rows, rows)


if __name__ == "__main__":
    main()
