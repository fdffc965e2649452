"""How many planted copies `avprep duplicates` finds, how many others it takes for copies, how fast.

- clips: 300 videos of which 30 are copies of others, with another codec, size, bit rate and
  loudness, beginning up to half a second earlier or later. Built into shards, then searched. The
  others are made up, each with its own scenes and notes, or real ones: `--videos DIR`. Many clips
  of one speaker before one background are the hardest.
- hashes: made-up hashes of 2 M clips, 1 % of which are copies with 3 % (pictures) and 8 % (sound)
  of the bits flipped and a shift of up to half a second. Seconds and memory of the search alone.

    python benchmarks/duplicates.py
    python benchmarks/duplicates.py --videos videos/ --hashes 0
"""

from __future__ import annotations

import csv
import itertools
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import ffmpeg
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rows import Row, parser_of, write_rows

from avprep.ffmpeg_binary import find_ffmpeg
from avprep.jobs import PoolOptions, run_jobs
from avprep.quality.near import Hashes, find_pairs

SECONDS, FPS, WIDTH, HEIGHT, RATE = 5, 10, 192, 144, 44100  # of a made-up clip
SHIFT = 0.5  # seconds at most
STEPS = 8  # of a hash of sound in that time
_H264 = {"vcodec": "libx264", "preset": "veryfast", "crf": 33}
_VP9 = {"vcodec": "libvpx-vp9", "deadline": "realtime", "cpu-used": 8, "video_bitrate": "150k"}
# Suffix and codecs of the copies.
CODECS = (
    ("mp4", {**_H264, "acodec": "aac", "audio_bitrate": "48k"}),
    ("webm", {**_VP9, "acodec": "libopus", "audio_bitrate": "32k"}),
    ("avi", {"vcodec": "mpeg4", "qscale:v": 9, "acodec": "libmp3lame", "audio_bitrate": "48k"}),
    ("mkv", {"vcodec": "mpeg2video", "qscale:v": 8, "acodec": "ac3", "audio_bitrate": "64k"}),
)
SCALES = (0.5, 0.7, 1.4)
GAINS = (-14, -6, 5)  # dB


def make_original(path: Path) -> None:
    """A video of its own: scenes that pan and cut, and notes of changing pitch and colour."""
    rng = np.random.default_rng(int(path.stem))
    frames = []
    for length in rng.multinomial(SECONDS * FPS, rng.dirichlet([2, 2, 2])):
        coarse = rng.integers(0, 256, (6, 8, 3), np.uint8)
        scene = Image.fromarray(coarse).resize((2 * WIDTH, 2 * HEIGHT), Image.Resampling.BICUBIC)
        x, y = rng.uniform(0, WIDTH / 2), rng.uniform(0, HEIGHT / 2)
        pan_x, pan_y = rng.uniform(-2, 2, 2)
        for number in range(length):
            left, top = round(abs(x + pan_x * number)), round(abs(y + pan_y * number))
            frames.append(np.asarray(scene.crop((left, top, left + WIDTH, top + HEIGHT))))
    notes = []
    while sum(map(len, notes)) < SECONDS * RATE:
        time_of = np.arange(int(RATE * rng.uniform(0.08, 0.5))) / RATE
        pitch = 150 * 2 ** rng.uniform(0, 3)
        tone = sum(rng.uniform(0, 1) * np.sin(6.283 * pitch * n * time_of) for n in range(1, 7))
        noise = rng.normal(0, rng.uniform(0, 0.5), len(time_of))
        notes.append((tone + noise) * np.exp(-time_of * rng.uniform(0, 8)))
    sound = np.concatenate(notes)[: SECONDS * RATE]
    with tempfile.NamedTemporaryFile(suffix=".pcm") as file:
        (sound / np.abs(sound).max() * 20000).astype("<i2").tofile(file.name)
        size = f"{WIDTH}x{HEIGHT}"
        picture = ffmpeg.input("pipe:0", format="rawvideo", pix_fmt="rgb24", s=size, r=FPS)
        channel = ffmpeg.input(file.name, format="s16le", ar=RATE, ac=1)
        coded = {"vcodec": "libx264", "preset": "ultrafast", "crf": 23, "pix_fmt": "yuv420p"}
        output = ffmpeg.output(picture, channel, str(path), threads=1, acodec="aac", **coded)
        output.run(find_ffmpeg(), input=np.stack(frames).tobytes(), quiet=True)


def make_copy(job: tuple[Path, Path, int]) -> None:
    """Encode a video in another way, up to half a second earlier or later."""
    source, folder, number = job
    rng = random.Random(number)
    suffix, codecs = CODECS[number % len(CODECS)]
    shift = rng.uniform(-SHIFT, SHIFT)
    file = ffmpeg.input(str(source), ss=max(0.0, shift))
    scale = rng.choice(SCALES)
    picture = file.video.filter("scale", f"trunc(iw*{scale}/2)*2", f"trunc(ih*{scale}/2)*2")
    sound = file.audio.filter("volume", f"{rng.choice(GAINS)}dB")
    if shift < 0:
        picture = picture.filter("tpad", start_duration=-shift, start_mode="clone")
        sound = sound.filter("adelay", f"{round(-1000 * shift)}", all=1)
    target = folder / f"copy-of-{source.stem}.{suffix}"
    ffmpeg.output(picture, sound, str(target), threads=1, **codecs).run(find_ffmpeg(), quiet=True)


def found_in(table: Path) -> set[frozenset[str]]:
    """The pairs of ids that a duplicates.csv puts into one group."""
    groups = defaultdict(list)
    with table.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            groups[row["group"]].append(row["video_id"])
    pairs = (itertools.combinations(ids, 2) for ids in groups.values())
    return {frozenset(pair) for pair in itertools.chain.from_iterable(pairs)}


def search_clips(folder: Path, clips: int, copies: int, source: Path | None) -> tuple[float, float]:
    """Recall and precision, in pairs of clips, of copies among made-up or real videos."""
    videos, pool = folder / "videos", PoolOptions()
    if source is None:
        originals = [folder / "made" / f"{number:06d}.mp4" for number in range(clips - copies)]
        originals[0].parent.mkdir()
        for _ in run_jobs(make_original, originals, pool):
            pass
    else:
        originals = sorted(path for path in source.iterdir() if path.is_file())
    originals = random.Random(0).sample(originals, min(clips - copies, len(originals)))
    videos.mkdir()
    for path in originals:
        (videos / path.name).symlink_to(path.resolve())
    copied = originals[:copies]
    jobs = [(path, videos, number) for number, path in enumerate(copied)]
    for _ in run_jobs(make_copy, jobs, pool):
        pass
    avprep = [sys.executable, "-m", "avprep"]
    manifest, shards, out = folder / "m.json", folder / "shards", folder / "duplicates"
    for words in (
        ["manifest", "folder", videos, "--out", manifest],
        ["shard", manifest, "--out", shards],
        ["duplicates", shards, "--out", out],
    ):
        done = subprocess.run([*avprep, *map(str, words)], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
    print(done.stdout)
    planted = {frozenset((path.stem, f"copy-of-{path.stem}")) for path in copied}
    found = found_in(out / "duplicates.csv")
    for what, pairs in (("missed", planted - found), ("wrong", found - planted)):
        for pair in sorted(map(sorted, pairs))[:10]:
            print(f"{what}: {' and '.join(pair)}")
    return len(planted & found) / len(planted), len(planted & found) / max(1, len(found))


def made_up_hashes(clips: int) -> tuple[Hashes, NDArray[np.int64]]:
    """Hashes of random bits, and pairs of clips of which the second is a copy of the first.

    The pictures of a clip differ from its first in an eighth of the bits.
    """
    rng = np.random.default_rng(0)
    hashes = Hashes.empty(clips)
    for start in range(0, clips, 1 << 16):
        picture = hashes.picture[start : start + (1 << 16)]
        picture[:] = rng.integers(0, 256, (len(picture), 1, picture.shape[2]))
        picture ^= flipped(rng, picture.shape, 0.125)
        sound = hashes.sound[start : start + (1 << 16)]
        sound[:] = rng.integers(0, 256, sound.shape)
    pairs = rng.choice(clips, (clips // 100, 2), replace=False)
    shifts = rng.integers(-STEPS, STEPS + 1, len(pairs))
    for shift in range(-STEPS, STEPS + 1):
        first, second = pairs[shifts == shift].T
        picture, sound = hashes.picture[first], np.roll(hashes.sound[first], shift, axis=1)
        hashes.picture[second] = picture ^ flipped(rng, picture.shape, 0.03)
        hashes.sound[second] = sound ^ flipped(rng, sound.shape, 0.08)
    return hashes, np.sort(pairs, axis=1)


def flipped(rng: np.random.Generator, shape: Sequence[int], share: float) -> NDArray[np.uint8]:
    """Bytes in which a share of the bits is set."""
    return np.packbits(rng.random((*shape, 8), np.float32) < share, axis=-1)[..., 0]


def search_hashes(clips: int) -> dict[str, float]:
    """Search made-up hashes: seconds, GiB, recall and precision."""
    hashes, planted = made_up_hashes(clips)
    began = time.perf_counter()
    pairs = find_pairs(hashes, "both")
    seconds = time.perf_counter() - began
    code = np.array([clips, 1])
    right = np.isin(np.stack([pairs.first, pairs.second], axis=1) @ code, planted @ code).sum()
    return {
        "seconds": seconds,
        "gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "recall": right / len(planted),
        "precision": right / max(1, len(pairs.first)),
    }


def main() -> None:
    """Measure and print."""
    parser = parser_of(
        __doc__,
        clips=(300, 60, "videos; 0: leave this part out"),
        copies=(30, 6, "of them, copies of others"),
        hashes=(2_000_000, 100_000, "clips whose hashes are made up; 0: leave this part out"),
    )
    parser.add_argument("--videos", type=Path, help="folder of videos to plant copies among")
    parser.add_argument("--json", action="store_true", help="only search hashes, and print JSON")
    arguments = parser.parse_args()
    if arguments.json:
        print(json.dumps(search_hashes(arguments.hashes)))
        return
    rows = []
    if arguments.clips:
        with tempfile.TemporaryDirectory() as folder:
            recall, precision = search_clips(
                Path(folder), arguments.clips, arguments.copies, arguments.videos
            )
        words = f"recall {recall:.3f}, precision {precision:.3f}"
        what = f"{arguments.copies} re-encoded copies among {arguments.clips:,} clips"
        print(f"{what}: {words}")
        rows.append(Row(f"near-duplicates: {what}", words, "", "", "≥ 0.95 each"))
    if arguments.hashes:
        # In a process of its own: its memory is that of the search alone.
        command = [sys.executable, __file__, "--json", "--hashes", str(arguments.hashes)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout)
        words = f"{found['seconds']:.0f} s, {found['gib']:.1f} GiB"
        what = f"searching the hashes of {arguments.hashes:,} clips"
        print(f"{what}: {words}, recall {found['recall']:.4f}, precision {found['precision']:.4f}")
        rows.append(Row(f"near-duplicates: {what}", words, "", "", "≤ 120 s, ≤ 2 GiB"))
    write_rows(arguments.rows, rows)


if __name__ == "__main__":
    main()
