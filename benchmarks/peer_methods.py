"""Other tools doing what `avprep shard` does, each as its users would write it.

Run by `benchmarks/peers.py`, once per tool, by an interpreter that has that tool; imports nothing
of ours:

    PYTHON benchmarks/peer_methods.py METHOD VIDEOS OUT

packs every video of a folder into OUT/shard.tar: 16 kHz mono audio and 10 frames of 224×224, and
prints the tool's name and version.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

FRAMES, SIZE, RATE, SECONDS = 10, 224, 16000, 10


def ffmpeg_loop(videos: list[Path], out: Path) -> None:
    """The hand-written loop: ffmpeg for the sound, ffmpeg for a frame a second, a tar writer."""
    import webdataset

    scale = f"fps=1,scale={SIZE}:{SIZE}:force_original_aspect_ratio=increase,crop={SIZE}:{SIZE}"
    with webdataset.TarWriter(str(out / "shard.tar")) as tar:
        for video in videos:
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                _ffmpeg("-i", video, "-vn", "-ac", 1, "-ar", RATE, folder / "sound.wav")
                _ffmpeg("-i", video, "-an", "-vf", scale, "-vframes", FRAMES, folder / "%d.jpg")
                frames = sorted(folder.glob("*.jpg"), key=lambda path: int(path.stem))
                sample = {f"{n}.jpg": path.read_bytes() for n, path in enumerate(frames)}
                sound = (folder / "sound.wav").read_bytes()
            tar.write({"__key__": video.stem, "wav": sound, **sample})


def decord(videos: list[Path], out: Path) -> None:
    """Frames by decord, which scales while it decodes; the sound by ffmpeg."""
    import decord
    import webdataset
    from PIL import Image

    with webdataset.TarWriter(str(out / "shard.tar")) as tar:
        for video in videos:
            height, width = decord.VideoReader(str(video), num_threads=1)[0].shape[:2]
            scale = SIZE / min(height, width)
            reader = decord.VideoReader(
                str(video), width=int(width * scale), height=int(height * scale), num_threads=1
            )
            wanted = _wanted(len(reader), reader.get_avg_fps())
            pictures = [Image.fromarray(rgb) for rgb in reader.get_batch(wanted).asnumpy()]
            sound = _ffmpeg("-i", video, "-vn", "-ac", 1, "-ar", RATE, "-f", "wav", "-")
            tar.write({"__key__": video.stem, "wav": sound, **_jpegs(pictures)})


def torchcodec(videos: list[Path], out: Path) -> None:
    """Frames and sound by torchcodec."""
    import soundfile
    import webdataset
    from PIL import Image
    from torchcodec.decoders import AudioDecoder, VideoDecoder

    with webdataset.TarWriter(str(out / "shard.tar")) as tar:
        for video in videos:
            decoder = VideoDecoder(str(video), num_ffmpeg_threads=1, dimension_order="NHWC")
            facts = decoder.metadata
            wanted = _wanted(facts.num_frames, facts.average_fps)
            pixels = decoder.get_frames_at(wanted).data.numpy()
            pictures = [Image.fromarray(rgb) for rgb in pixels]
            samples = AudioDecoder(str(video), sample_rate=RATE, num_channels=1).get_all_samples()
            sound = io.BytesIO()
            soundfile.write(sound, samples.data[0].numpy(), RATE, format="FLAC")
            tar.write({"__key__": video.stem, "flac": sound.getvalue(), **_jpegs(pictures)})


def video2dataset(videos: list[Path], out: Path) -> None:
    """One process; the nearest that its release 1.3.0 can do.

    That is the whole video scaled to 224×224 and the sound as FLAC at its own rate: the subsamplers
    for frame rate and sample rate end every sample in an error ("dictionary keys changed").
    """
    from video2dataset import video2dataset

    config = {
        "subsampling": {
            "ResolutionSubsampler": {"args": {"video_size": SIZE, "resize_mode": "scale,crop"}},
        },
        "reading": {"yt_args": {}, "timeout": 60, "sampler": None},
        "storage": {
            "number_sample_per_shard": 1000,
            "oom_shard_count": 5,
            "captions_are_subtitles": False,
        },
        "distribution": {
            "processes_count": 1,
            "thread_count": 1,
            "subjob_size": 1000,
            "distributor": "multiprocessing",
        },
    }
    listed = out / "videos.csv"
    listed.write_text("url\n" + "".join(f"{video}\n" for video in videos))
    video2dataset(
        url_list=str(listed),
        output_folder=str(out / "shards"),
        output_format="webdataset",
        input_format="csv",
        encode_formats={"video": "mp4", "audio": "flac"},
        config=config,
    )


def _wanted(count: int, rate: float) -> list[int]:
    n = min(count, int(rate * SECONDS))
    return [max(int(i * n / FRAMES) - 1, 0) for i in range(FRAMES)]


def _jpegs(pictures: list) -> dict[str, bytes]:
    encoded = {}
    for number, picture in enumerate(pictures):
        scale = SIZE / min(picture.size)
        width, height = (max(SIZE, int(side * scale)) for side in picture.size)
        left, top = (width - SIZE) // 2, (height - SIZE) // 2
        small = picture if scale == 1 else picture.resize((width, height), 2)  # bilinear
        buffer = io.BytesIO()
        small.crop((left, top, left + SIZE, top + SIZE)).save(buffer, "JPEG", quality=75)
        encoded[f"{number}.jpg"] = buffer.getvalue()
    return encoded


def _ffmpeg(*arguments: object) -> bytes:
    command = ["ffmpeg", "-nostdin", "-v", "error", "-y", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True).stdout


METHODS: dict[str, Callable[[list[Path], Path], None]] = {
    method.__name__.replace("_", "-"): method
    for method in (ffmpeg_loop, decord, torchcodec, video2dataset)
}


def version(method: str) -> str:
    """ "ffmpeg 7.1", "decord 0.6.0"."""
    if method == "ffmpeg-loop":
        return " ".join(_ffmpeg("-version").decode().split()[:3:2])
    return f"{method} {metadata.version(method)}"


if "video2dataset" in sys.argv:  # not under "main": its worker processes import this file, too
    from video2dataset.subsamplers import ResolutionSubsampler

    # Release 1.3.0 asks its subsampler for an attribute that it lost; without it nothing runs.
    ResolutionSubsampler.encode_formats = {"video": "mp4"}

if __name__ == "__main__":
    METHODS[sys.argv[1]](sorted(Path(sys.argv[2]).iterdir()), Path(sys.argv[3]))
    print(version(sys.argv[1]))
