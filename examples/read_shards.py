"""Read shards with plain webdataset: nothing of this project is needed.

pip install webdataset soundfile pillow
python examples/read_shards.py shards/train
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import webdataset
from PIL import Image


def samples(folder: Path) -> Iterator[tuple[str, list[str], np.ndarray, np.ndarray]]:
    """(video id, labels, int16 [samples] at 16 kHz, uint8 [frames, 224, 224, 3]) of each clip."""
    urls = [str(path) for path in sorted(folder.glob("shard-*.tar"))]
    for sample in webdataset.WebDataset(urls, shardshuffle=False):
        facts = json.loads(sample["json"])
        sound = sample.get("flac") or sample["wav"]
        waveform, _ = soundfile.read(io.BytesIO(sound), dtype="int16")
        names = sorted((name for name in sample if name.endswith(".jpg")), key=_frame_number)
        frames = np.stack([np.asarray(Image.open(io.BytesIO(sample[name]))) for name in names])
        yield facts["video_id"], facts["labels"], waveform, frames


def _frame_number(name: str) -> int:
    return int(name.partition(".")[0])


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for video_id, labels, waveform, frames in samples(Path(sys.argv[1])):
        print(f"{video_id}: {labels}, {len(waveform) / 16000:.2f} s, frames {frames.shape}")
