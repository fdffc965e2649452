"""How long `avprep report` takes on a set of many clips, beside merely parsing its indexes.

Makes the indexes of a set (by default 2 million clips in shards of 500, 527 classes, one to three
a clip) and shards of which only the clips in the gallery have bytes, which is all that a report
reads. Then times, in turn, the whole report and `json.loads` of every index.

    python benchmarks/report.py [--clips 2000000] [--quick]
"""

from __future__ import annotations

import io
import json
import random
import resource
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from rows import Row, parser_of, times, write_rows

from avprep.audio import encode_flac
from avprep.images import encode_jpeg
from avprep.pages.gallery import GalleryOptions
from avprep.pages.shard_report import ReportOptions, make_report
from avprep.pages.survey import survey_shards
from avprep.shards.format import (
    TAR_BLOCK,
    DatasetInfo,
    SampleEntry,
    ShardIndex,
    ShardInfo,
    index_name,
    read_dataset,
    sample_key,
    write_dataset,
)
from avprep.shards.writer import tar_writer, write_members

CLASSES, PER_SHARD, SECONDS, FRAMES = 527, 500, 10, 10


def make_media() -> dict[str, bytes]:
    """Noise of the size of real media: the members of a sample but its JSON."""
    rng = np.random.default_rng(0)
    pcm = (rng.standard_normal(SECONDS * 16000) * 200).astype(np.int16)
    small = rng.integers(0, 256, (28, 28, 3), np.uint8)
    jpeg = encode_jpeg(small.repeat(8, axis=0).repeat(8, axis=1), 75)
    return {"flac": encode_flac(pcm), **{f"{number}.jpg": jpeg for number in range(FRAMES)}}


def sample_bytes(entry: SampleEntry, media: dict[str, bytes]) -> bytes:
    """A whole sample of the entry's size, filled up inside its JSON."""
    facts = {
        "video_id": entry.video_id,
        "sample_rate": 16000,
        "num_samples": SECONDS * 16000,
        "frame_times": [number * SECONDS / FRAMES for number in range(FRAMES)],
        "source": f"/videos/{entry.video_id}.mp4",
    }
    text = json.dumps(facts).encode().ljust(TAR_BLOCK)
    archive = io.BytesIO()
    with tar_writer(archive) as tar:
        size = write_members(tar, entry.key, {"json": text, **media})
    return archive.getvalue()[:size]


def make_set(folder: Path, clips: int, media: dict[str, bytes]) -> None:
    """Indexes, dataset.json, and shards that are holes."""
    rng = random.Random(0)
    weights = [1 / (number + 1) for number in range(CLASSES)]
    size = len(sample_bytes(SampleEntry("k", "k", 0, 0, ()), media))
    counts: Counter[int] = Counter()
    shards = []
    for number in range(-(-clips // PER_SHARD)):
        name = f"shard-{number:06d}.tar"
        entries = []
        for row in range(min(PER_SHARD, clips - number * PER_SHARD)):
            video_id = f"{rng.getrandbits(64):011x}_{rng.randrange(600)}.000"
            labels = tuple(sorted(set(rng.choices(range(CLASSES), weights, k=rng.randint(1, 3)))))
            counts.update(labels)
            length = SECONDS * 16000 - rng.randrange(2000)
            entries.append(
                SampleEntry(sample_key(video_id), video_id, row * size, size, labels, "", length)
            )
        index = ShardIndex(name, "x", size * len(entries), name, 5000.0, tuple(entries), ())
        (folder / index_name(name)).write_bytes(index.to_bytes())
        with (folder / name).open("wb") as file:
            file.truncate(index.bytes)
        shards.append(ShardInfo(name, len(entries), index.bytes, name))
    info = DatasetInfo(
        labels=tuple((f"/m/{number}", f"class {number}") for number in range(CLASSES)),
        options={"sample_rate": 16000},
        tools={},
        shards=tuple(shards),
        samples=clips,
        clips=clips,
        seconds=10.0 * clips,
        failures={},
        class_counts=tuple(counts[number] for number in range(CLASSES)),
    )
    write_dataset(folder, info)


def fill_gallery(folder: Path, media: dict[str, bytes]) -> None:
    """Write the samples that a report will read into the holes."""
    survey = survey_shards(str(folder), read_dataset(folder), GalleryOptions())
    for candidate in survey.candidates:
        with (folder / candidate.shard).open("r+b") as file:
            file.seek(candidate.entry.offset)
            file.write(sample_bytes(candidate.entry, media))


def main() -> None:
    """Make the set, time both sides in turn, and print a ratio."""
    parser = parser_of(
        __doc__, clips=(2_000_000, 50_000, "clips of the set"), rounds=(3, 1, "of both sides")
    )
    arguments = parser.parse_args()
    media = make_media()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_set(folder, arguments.clips, media)
        fill_gallery(folder, media)
        indexes = sorted(folder.glob("*.index.json"))
        ours, bare = [], []
        for _ in range(arguments.rounds):
            start = time.perf_counter()
            summary = make_report(str(folder), ReportOptions())
            ours.append(time.perf_counter() - start)
            start = time.perf_counter()
            for path in indexes:
                json.loads(path.read_bytes())
            bare.append(time.perf_counter() - start)
        total = sum(path.stat().st_size for path in indexes)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{arguments.clips:,} clips in {len(indexes):,} shards, indexes of {total / 1e6:.0f} MB")
    whole, parsing = statistics.median(ours), statistics.median(bare)
    print(f"report of {summary.clips} clips, {len(summary.page) / 1e6:.1f} MB: {whole:.1f} s")
    print(f"json.loads of every index: {parsing:.1f} s, ratio {whole / parsing:.2f}")
    print(f"peak memory {peak:.0f} MB")
    row = Row(
        f"report of {arguments.clips:,} clips",
        f"{whole:.1f} s",
        f"parsing the indexes alone: {parsing:.1f} s",
        times(whole, parsing),
    )
    write_rows(arguments.rows, [row])
    if summary.unreadable:
        raise SystemExit(
            f"{len(summary.unreadable)} clips were unreadable: {summary.unreadable[0]}"
        )


if __name__ == "__main__":
    main()
