"""How long packing extracted files into shards takes, beside `tar` of the same files.

Makes clips of 10 s in the published layout (WAV and 10 JPEG files each) and times

- `tar`: one archive of the same files by the system's tar, synced; the same with sha256sum of the
  archive, which ours has as well; and that with the measures of each clip, for which its pictures
  are decoded, made in a plain loop;
- ours: `avprep shard`'s job with `--audio wav` (the same bytes go in), everything included:
  checking each file, keys, JSON, headers, checksum, measures, index, and the process that reads the
  files.

Both write to the same disk and are synced. The rounds are interleaved and medians compared. FLAC,
which ours makes by default, is a row of its own: it buys half the size with CPU.

    python benchmarks/shard.py [--quick]
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
from extract import cost, rebuild
from PIL import Image
from rows import Row, parser_of, times, write_rows

from avprep.audio import decode_audio
from avprep.clips import Clip
from avprep.images import decode_jpeg
from avprep.labels import label_set_from_names
from avprep.options import IsolationOptions, SampleOptions
from avprep.quality.measures import measure_clip
from avprep.shards.writer import ShardSettings

SECONDS, FRAMES, SIZE = 10, 10, 224
LABELS = label_set_from_names(["clip"])


def make_clips(folder: Path, count: int) -> list[Clip]:
    """Files in the published layout: coloured noise, and smooth pictures with grain."""
    rng = np.random.default_rng(0)
    (folder / "audio").mkdir()
    for number in range(FRAMES):
        (folder / "frames" / f"frame_{number}").mkdir(parents=True)
    clips = []
    for number in range(count):
        video_id = f"clip{number:05d}"
        spectrum = np.fft.rfft(rng.standard_normal(SECONDS * 16000)) / np.arange(1, 80002)
        sound = np.fft.irfft(spectrum)
        sound = sound / np.abs(sound).max() * 0.5 + 0.003 * rng.standard_normal(len(sound))
        wav = folder / "audio" / f"{video_id}.wav"
        soundfile.write(wav, (sound * 32767).astype(np.int16), 16000)
        for frame in range(FRAMES):
            coarse = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
            smooth = np.asarray(coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
            grainy = (smooth + rng.normal(0, 4, smooth.shape)).clip(0, 255).astype(np.uint8)
            path = folder / "frames" / f"frame_{frame}" / f"{video_id}.jpg"
            Image.fromarray(grainy).save(path, quality=75)
        clips.append(Clip(video_id, ("clip",), wav=str(wav), video_path=str(folder / "frames")))
    return clips


def pack(clips: list[Clip], out: Path, audio: str) -> None:
    """One shard of the clips."""
    options = SampleOptions(audio=audio)  # type: ignore[arg-type]
    settings = ShardSettings(str(out), LABELS, options, IsolationOptions(), fingerprint="")
    rebuild(clips, settings)


def tar(folder: Path, names: Path) -> Path:
    """The same files by the system's tar."""
    archive = folder / "plain.tar"
    subprocess.run(["tar", "-cf", str(archive), "-C", str(folder), "-T", str(names)], check=True)
    subprocess.run(["sync", str(archive)], check=True)
    return archive


def tar_with_checksum(folder: Path, names: Path) -> None:
    """The same, and its checksum."""
    archive = str(tar(folder, names))
    subprocess.run(["sha256sum", archive], check=True, stdout=subprocess.DEVNULL)


def tar_with_measures(folder: Path, names: Path, clips: list[Clip]) -> None:
    """The same, and the measures of every clip."""
    tar_with_checksum(folder, names)
    for clip in clips:
        files = (Path(clip.video_path, f"frame_{n}", f"{clip.video_id}.jpg") for n in range(FRAMES))
        frames = np.stack([decode_jpeg(file.read_bytes()) for file in files])
        measure_clip(decode_audio(Path(clip.wav).read_bytes()), frames, 16000)


def list_files(folder: Path, clips: list[Clip]) -> Path:
    """A file with the names of all files, clip by clip, for tar."""
    names = folder / "names.txt"
    lines = []
    for clip in clips:
        lines.append(f"audio/{clip.video_id}.wav")
        lines += [f"frames/frame_{number}/{clip.video_id}.jpg" for number in range(FRAMES)]
    names.write_text("\n".join(lines) + "\n")
    return names


def main() -> None:
    """Measure and print."""
    sizes = {"clips": (512, 64, "clips"), "rounds": (5, 2, "rounds of each side")}
    arguments = parser_of(__doc__, **sizes).parse_args()
    count, rounds = arguments.clips, arguments.rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = make_clips(folder, count)
        names = list_files(folder, clips)
        sides: dict[str, Callable[[], object]] = {
            "tar": lambda: tar(folder, names),
            "tar_sha256": lambda: tar_with_checksum(folder, names),
            "tar_measures": lambda: tar_with_measures(folder, names, clips),
            "wav": lambda: pack(clips, folder, "wav"),
            "flac": lambda: pack(clips, folder, "flac"),
        }
        costs: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
        for _ in range(rounds):
            for side, work in sides.items():
                costs[side].append(cost(work, count))
    results = {
        side: {
            "cpu_ms": round(statistics.median(cpu for cpu, _ in values), 3),
            "wall_ms": round(statistics.median(wall for _, wall in values), 3),
        }
        for side, values in costs.items()
    }
    print(f"{count} clips\n\n| | CPU ms per clip | wall ms per clip |\n|---|---|---|")
    labels = {
        "tar": "tar, sync",
        "tar_sha256": "tar, sync, sha256sum",
        "tar_measures": "tar, sync, sha256sum, measures",
        "wav": "ours, WAV kept",
        "flac": "ours, WAV to FLAC",
    }
    for side, label in labels.items():
        print(f"| {label} | {results[side]['cpu_ms']:.2f} | {results[side]['wall_ms']:.2f} |")
    ours = results["wav"]["wall_ms"]
    rows = []
    print("\nPacking takes")
    for side, goal in (("tar", ""), ("tar_sha256", "≤ 1.3×"), ("tar_measures", "")):
        theirs = results[side]["wall_ms"]
        ratio = times(ours, theirs)
        print(f"- {ratio} the time of {labels[side]}" + (f" (goal {goal})" if goal else ""))
        what = f"packing {count} extracted clips into a shard, wall time per clip"
        rows.append(Row(what, f"{ours:.1f} ms", f"{labels[side]}: {theirs:.1f} ms", ratio, goal))
    write_rows(arguments.rows, rows)


if __name__ == "__main__":
    main()
