"""What clips in archives cost beside the same clips in a folder, and how often archives are read.

Makes clips of 10 s, packs them into a tar, a tar.gz and a zip, and builds a shard set of each with
two workers, everything included. CPU time counts child processes; the rounds of all sides are
interleaved and medians compared. What is read of an archive is what the thread that reads it reads,
by Linux's count, less the samples that it puts in their order.

    python benchmarks/archives.py [--quick]
"""

from __future__ import annotations

import shutil
import statistics
import tarfile
import tempfile
import zipfile
from pathlib import Path

from extract import KINDS, LABELS, cost, linked_clips, make_clip
from rows import Row, parser_of, times, write_rows

from avprep.clips import Clip
from avprep.options import PoolOptions, ShardSetOptions
from avprep.shards.build import build_shard_set

IO = Path("/proc/thread-self/io")


def pack(clips: list[Clip], folder: Path) -> dict[str, list[Clip]]:
    """The same clips in archives of each kind, by its name."""
    with (
        # Not the links that the clips are.
        tarfile.open(folder / "x.tar", "w", dereference=True) as plain,
        tarfile.open(folder / "x.tar.gz", "w:gz", compresslevel=1) as compressed,
        zipfile.ZipFile(folder / "x.zip", "w") as zipped,
    ):
        compressed.dereference = True
        for clip in clips:
            name = Path(clip.video).name
            plain.add(clip.video, name)
            compressed.add(clip.video, name)
            zipped.write(clip.video, name)
    return {
        kind: [
            Clip(one.video_id, one.labels, f"{scheme}://{Path(one.video).name}::{folder}/x.{kind}")
            for one in clips
        ]
        for kind, scheme in (("tar", "tar"), ("tar.gz", "tar"), ("zip", "zip"))
    }


def build(clips: list[Clip], out: Path) -> int:
    """A shard set of the clips, with two workers; returns what this thread read of the clips."""
    before = bytes_read()
    report = build_shard_set(clips, LABELS, str(out), ShardSetOptions(), PoolOptions(2))
    assert report.samples == len(clips), report.failures
    shutil.rmtree(out)
    return bytes_read() - before - report.bytes


def bytes_read() -> int:
    """By this thread so far; 0 where the system does not count."""
    if not IO.exists():
        return 0
    return int(dict(line.split(": ") for line in IO.read_text().splitlines())["rchar"])


def main() -> None:
    """Measure and print."""
    sizes = {"clips": (128, 60, "clips"), "rounds": (2, 1, "rounds of each side")}
    arguments = parser_of(__doc__, **sizes).parse_args()
    count, rounds = arguments.clips, arguments.rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = linked_clips(make_clip(folder / "clip.mp4", KINDS[0]), folder / "clips", count)
        sides = {"folder": clips, **pack(clips, folder)}
        build(clips[:1], folder / "warm")  # imports
        cpu: dict[str, list[float]] = {side: [] for side in sides}
        read: dict[str, int] = {}
        for _ in range(rounds):
            for side, of_side in sides.items():

                def work(side: str = side, of_side: list[Clip] = of_side) -> None:
                    read[side] = build(of_side, folder / "s")

                cpu[side].append(cost(work, count)[0])
        sizes = {side: (folder / f"x.{side}").stat().st_size for side in sides if side != "folder"}
    medians = {side: statistics.median(values) for side, values in cpu.items()}
    shares = {side: read[side] / size for side, size in sizes.items()}
    print(f"{count} clips, two workers\n\n| | CPU ms per clip | of a folder's | archive read |")
    print(f"|---|---|---|---|\n| folder | {medians['folder']:.1f} | 1.00× | |")
    for side, share in shares.items():
        ratio = times(medians[side], medians["folder"])
        print(f"| {side} | {medians[side]:.1f} | {ratio} | {share:.2f}× |")
    goals = {"tar": "≤ 1.15×"}
    write_rows(
        arguments.rows,
        [
            *(
                Row(
                    f"clip of 10 s, H.264 360p, in a {side}: CPU from file to shard",
                    f"{medians[side]:.0f} ms",
                    f"in a folder: {medians['folder']:.0f} ms",
                    times(medians[side], medians["folder"]),
                    goals.get(side, ""),
                )
                for side in shares
            ),
            *(
                Row(
                    f"bytes read of a {side} of {count} clips",
                    f"{share * sizes[side] / 1e6:.0f} MB",
                    f"its size: {sizes[side] / 1e6:.0f} MB",
                    f"{share:.2f}×",
                    "≤ 1.1×",
                )
                for side, share in shares.items()
            ),
        ],
    )


if __name__ == "__main__":
    main()
