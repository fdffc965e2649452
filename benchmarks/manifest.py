"""How long a manifest takes for millions of clips, and how much memory.

Makes a segments CSV as AudioSet's with made-up ids, and files of zeros named in all the ways people
name them, in 100 sub-folders; then measures, each in a process of its own held to one core,

- scan: finding the files of the folder, by id (the scan alone, into a dictionary of its names);
- manifest audioset: from CSV and folder to `.jsonl`, class CSV and report, as the command does it;
- check, weights, convert: one pass each over that `.jsonl`.

The goals: 1 M files scanned within 60 s and 1 GB; a manifest of 2 M clips within 25 s and 1 GB.
As a yardstick the same table is read by pandas and joined with the file list of `find`, which is
what a script would do that knows one naming only and checks nothing.

    python benchmarks/manifest.py               # 2 M clips; needs 2 M inodes for a few minutes
    python benchmarks/manifest.py --quick
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rows import Row, parser_of, times, write_rows

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
CLASSES, FOLDERS = 527, 100
SHARE_THERE = 0.95  # of the clips have a file

COMPARED = ("manifest audioset", "yardstick, one naming")
YARDSTICK = """
import subprocess, sys
import pandas as pd
csv, folder = sys.argv[1:]
names = ["video_id", "start", "end", "labels"]
table = pd.read_csv(csv, comment="#", names=names, skipinitialspace=True)
files = subprocess.run(["find", folder, "-name", "*.mp4"], capture_output=True, text=True).stdout
found = pd.DataFrame({"path": files.split()})
found["video_id"] = found["path"].str.extract(r"/([^/]*)\\.mp4$")
table.merge(found, on="video_id").to_json(sys.argv[1] + ".out", orient="records", lines=True)
"""
SCAN = """
import sys
from pathlib import Path
from avprep.clips import scan_files
from avprep.kinds import VIDEO_SUFFIXES
found = {name: folder for folder, name in scan_files(Path(sys.argv[1]), VIDEO_SUFFIXES)}
"""


def file_name(number: int, video_id: str, start: int) -> str:
    """One of the namings that people use."""
    return (
        f"{video_id}.mp4",
        f"Y{video_id}.mp4",
        f"{video_id}_{start}.mp4",
        f"{video_id}_{start:06d}.mkv",
        f"{video_id}_{start}.000.webm",
        f"{video_id}_{start}_{start + 10}.mp4",
        f"{video_id}_{start * 1000}_{(start + 10) * 1000}.mp4",
    )[number % 7]


def make_data_set(folder: Path, clips: int) -> None:
    """`segments.csv`, `labels.csv` and `videos/` with a file for most rows."""
    rng = random.Random(0)
    mids = [f"/m/{number:05x}" for number in range(CLASSES)]
    with (folder / "labels.csv").open("w") as file:
        file.write("index,mid,display_name\n")
        file.writelines(f'{n},{mid},"Class {n}, made up"\n' for n, mid in enumerate(mids))
    for number in range(FOLDERS):
        (folder / "videos" / f"{number:02d}").mkdir(parents=True)
    with (folder / "segments.csv").open("w") as file:
        file.write("# YTID, start_seconds, end_seconds, positive_labels\n")
        for number in range(clips):
            video_id = "".join(rng.choices(ALPHABET, k=11))
            start = rng.randrange(600)
            labels = ",".join(rng.sample(mids, rng.randint(1, 4)))
            file.write(f'{video_id}, {start}.000, {start + 10}.000, "{labels}"\n')
            if rng.random() < SHARE_THERE:
                name = file_name(number, video_id, start)
                path = folder / "videos" / f"{number % FOLDERS:02d}" / name
                file_number = os.open(path, os.O_CREAT | os.O_WRONLY)
                os.ftruncate(file_number, number + 1)  # sizes differ, as those of videos do
                os.close(file_number)


def measure(arguments: list[str]) -> tuple[float, float, str]:
    """Wall seconds, peak MB of the process or of one it starts, and what it printed."""
    code = (
        "import json, resource, subprocess, sys, time\n"
        "began = time.perf_counter()\n"
        "done = subprocess.run(sys.argv[1:], capture_output=True, text=True)\n"
        "seconds = time.perf_counter() - began\n"
        "memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6\n"
        "if done.returncode: sys.exit(done.stderr)\n"
        "print(json.dumps([seconds, memory, done.stdout]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return tuple(json.loads(done.stdout))


def main() -> None:
    """Measure and print."""
    parser = parser_of(
        __doc__,
        clips=(2_000_000, 50_000, "rows of the CSV"),
        rounds=(2, 1, "of the two sides that are compared"),
    )
    parser.add_argument(
        "--folder",
        type=Path,
        help="Make the data set here and keep it, or measure the one that is here.",
    )
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    python, avprep = sys.executable, [sys.executable, "-m", "avprep"]
    with tempfile.TemporaryDirectory() as name:
        folder = arguments.folder or Path(name)
        if not (folder / "segments.csv").exists():
            folder.mkdir(exist_ok=True)
            make_data_set(folder, arguments.clips)
            print(f"made {arguments.clips} rows and files for {SHARE_THERE:.0%} of them")
        clips = sum(1 for _ in (folder / "segments.csv").open()) - 1
        csv, videos, out = folder / "segments.csv", folder / "videos", folder / "m.jsonl"
        commands = {
            "scan of the folder": [python, "-c", SCAN, str(videos)],
            "manifest audioset": [
                *avprep, "manifest", "audioset", "--segments", str(csv), "--videos", str(videos),
                "--labels", str(folder / "labels.csv"), "--out", str(out),
            ],
            "yardstick, one naming": [python, "-c", YARDSTICK, str(csv), str(videos)],
            "manifest check": [*avprep, "manifest", "check", str(out)],
            "weights": [*avprep, "weights", str(out)],
            "manifest convert": [
                *avprep, "manifest", "convert", str(out), str(folder / "n.jsonl"), "--root",
                f"{videos}=/data",
            ],
        }  # fmt: skip
        print("\n| command | s | peak MB | clips/s |\n|---|---|---|---|")
        took: dict[str, list[float]] = {title: [] for title in commands}
        peak: dict[str, float] = {}
        for number in range(arguments.rounds):
            for title in commands if number == 0 else COMPARED:
                seconds, memory, said = measure(commands[title])
                took[title].append(seconds)
                peak[title] = memory
                print(
                    f"| {title} | {seconds:.1f} | {memory:.0f} | {clips / seconds:.0f} |",
                    flush=True,
                )
                if title == COMPARED[0] and number == 0:
                    summary = said.strip()
        print(f"\n{summary}")
    ours, yardstick = (statistics.median(took[title]) for title in COMPARED)
    beside = f"pandas and a folder listing, one naming, no checks: {yardstick:.1f} s"
    words = f"{ours:.1f} s, {peak[COMPARED[0]]:,.0f} MB"
    row = Row(f"AudioSet manifest of {clips:,} clips, one core", words, beside,
              times(ours, yardstick), "2 M in ≤ 25 s, ≤ 1 GB")  # fmt: skip
    write_rows(arguments.rows, [row])


if __name__ == "__main__":
    main()
