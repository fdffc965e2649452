"""Draws the quality-*.png in docs/pictures: made-up clips with planted faults.

python docs/make_quality_pictures.py
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from avprep.decode import Media, decode_clip
from avprep.quality.faults import FAULTS
from avprep.quality.measures import SOUND_MEASURES, measure_clip
from tests.faulty_clips import make_faulty_clip

PICTURES = Path(__file__).resolve().parent / "pictures"
PICTURE_CLIP, SOUND_CLIP = 12, 12  # numbers of ordinary clips whose faults show well
RATE = 16000


def main() -> None:
    sounds = ["", *(fault.name for fault in FAULTS if fault.measure in SOUND_MEASURES)]
    pictures = ["", *(fault.name for fault in FAULTS if fault.measure not in SOUND_MEASURES)]
    with tempfile.TemporaryDirectory() as name:
        draw_pictures({fault: _clip(Path(name), PICTURE_CLIP, fault) for fault in pictures})
        draw_sounds({fault: _clip(Path(name), SOUND_CLIP, fault) for fault in sounds})


def _clip(folder: Path, number: int, fault: str) -> Media:
    return decode_clip(make_faulty_clip(folder, number, fault).path)


def _title(media: Media, fault: str, shown: str) -> str:
    measures = measure_clip(media.pcm, media.frames, RATE)
    measure = next((one.measure for one in FAULTS if one.name == fault), shown)
    return f"{fault or 'ordinary'}: {measure} {measures[measure]:g}"


def draw_pictures(clips: dict[str, Media]) -> None:
    """The first and the fifth frame of each clip."""
    figure = Figure(figsize=(2 * len(clips), 4.3), dpi=55)
    axes = figure.subplots(2, len(clips))
    for column, (fault, media) in enumerate(clips.items()):
        axes[0, column].set_title(_title(media, fault, "stillness"), fontsize=9)
        for row, frame in enumerate(media.frames[[0, 4]]):
            axes[row, column].imshow(frame)
            axes[row, column].set_axis_off()
    _save(figure, "quality-pictures.png")


def draw_sounds(clips: dict[str, Media]) -> None:
    """Forty milliseconds of each clip, from where it is loudest."""
    figure = Figure(figsize=(2 * len(clips), 2), dpi=60)
    axes = figure.subplots(1, len(clips), sharey=True)
    for axis, (fault, media) in zip(axes, clips.items(), strict=True):
        middle = int(np.abs(media.pcm[RATE // 2 : -RATE // 2].astype(int)).argmax()) + RATE // 2
        piece = media.pcm[middle - RATE // 50 : middle + RATE // 50]
        axis.plot(piece / 32768, linewidth=0.8)
        axis.set_title(_title(media, fault, "rms_db"), fontsize=9)
        axis.set_ylim(-1.05, 1.05)
        axis.set_xticks([])
    _save(figure, "quality-sounds.png")


def _save(figure: Figure, name: str) -> None:
    figure.tight_layout(pad=0.4)
    drawn = io.BytesIO()
    figure.savefig(drawn)
    colours = Image.open(drawn).convert("RGB").quantize(64)
    colours.save(PICTURES / name, optimize=True)


if __name__ == "__main__":
    main()
