"""Shard sets of small random samples, written by the real shard writer."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from avprep.audio import encode_flac, encode_wav
from avprep.clips import Clip
from avprep.encode.wire import EncodedSample
from avprep.labels import LabelSet
from avprep.options import DecodeOptions, IsolationOptions, SampleOptions
from avprep.shards.format import (
    DatasetInfo,
    ShardInfo,
    added_up,
    count_modalities,
    index_name,
    write_dataset,
)
from avprep.shards.plan import ShardJob
from avprep.shards.writer import ShardSettings, ShardWriter

CLASSES = LabelSet(("/m/a", "/m/b", "/m/c", "/m/d"), ("Ape", "Bell, big", "Cat", "Dog"))
SIZE = 16  # pixels of a frame's side


@dataclass
class TinyShards:
    """A shard set on disk, and what was put into it, by video_id."""

    folder: Path
    pcm: dict[str, np.ndarray] = field(default_factory=dict)
    frames: dict[str, np.ndarray] = field(default_factory=dict)  # uint8 [frames, 3], plain colours
    labels: dict[str, tuple[int, ...]] = field(default_factory=dict)


def write_tiny_shards(
    folder: Path,
    samples: int = 40,
    per_shard: int = 7,
    audio: str = "flac",
    frames: int = 3,
    lengths: tuple[int, int] = (400, 2500),
    seed: int = 0,
    unlabelled_split: str | None = None,
    lacking: Mapping[int, str] = {},
) -> TinyShards:
    """Write `samples` samples with the ids `clip.0`, `clip.1`, …; clip n has class n % 4.

    Every fifth is of the split `test`, the others are of `train`. `lacking` has the modality, audio
    or image, that a clip lacks, by its number.
    """
    rng = np.random.default_rng(seed)
    made = TinyShards(folder)
    options = SampleOptions(DecodeOptions(frames=frames, frame_size=SIZE), audio=audio)
    settings = ShardSettings(str(folder), CLASSES, options, IsolationOptions(), "tiny")

    def encode(clip: Clip) -> EncodedSample:
        pcm = rng.integers(-9000, 9000, rng.integers(*lengths)).astype(np.int16)
        colours = rng.integers(0, 256, (frames, 3)).astype(np.uint8)
        made.pcm[clip.video_id], made.frames[clip.video_id] = pcm, colours
        made.labels[clip.video_id] = CLASSES.indices_of(clip.labels)
        sound = encode_flac(pcm) if audio == "flac" else encode_wav(pcm)
        pictures = tuple(map(_plain_jpeg, colours))
        lacks = lacking.get(int(clip.video_id.removeprefix("clip.")))
        if lacks == "audio":
            pcm, sound = pcm[:0], b""
        if lacks == "image":
            pictures = ()
        return EncodedSample(sound, pictures, (0.0,) * len(pictures), len(pcm), "pyav")

    folder.mkdir(parents=True)
    splits = ["train" if n % 5 else "test" for n in range(samples)]
    clips = [
        Clip(
            f"clip.{n}",
            video=f"/v/{n}.mp4",
            labels=() if split == unlabelled_split else CLASSES.mids[n % 4 : n % 4 + 1],
            split=split,
        )
        for n, split in enumerate(splits)
    ]
    shards, counts, seconds, modalities = [], Counter(), 0.0, []
    for number, start in enumerate(range(0, samples, per_shard)):
        job = ShardJob(f"shard-{number:06d}.tar", tuple(clips[start : start + per_shard]))
        with (folder / job.name).open("wb") as file, ShardWriter(file, job, settings) as shard:
            for clip in job.clips:
                shard.add(clip, encode(clip))
            index = shard.finish()
        (folder / index_name(job.name)).write_bytes(index.to_bytes())
        shards.append(ShardInfo(index.name, len(index.samples), index.bytes, index.sha256))
        counts.update(label for entry in index.samples for label in entry.labels)
        seconds += index.seconds
        modalities.append(count_modalities(index.samples))
    info = DatasetInfo(
        labels=tuple(zip(CLASSES.mids, CLASSES.names, strict=True)),
        options={"frames": frames, "frame_size": SIZE, "sample_rate": 16000, "audio": audio},
        tools={},
        shards=tuple(shards),
        samples=samples,
        clips=samples,
        seconds=round(seconds, 3),
        failures={},
        class_counts=tuple(counts[label] for label in range(len(CLASSES))),
        fingerprint="tiny",
        modalities=added_up(modalities),
    )
    write_dataset(folder, info)
    return made


def _plain_jpeg(colour: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    picture = np.broadcast_to(colour, (SIZE, SIZE, 3))
    Image.fromarray(picture).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()
