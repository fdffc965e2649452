"""How long packing extracted files into shards takes, beside `tar` of the same files.

Makes clips of 10 s in the published layout (WAV and 10 JPEG files each) and times

- `tar`: one archive of the same files by the system's tar, synced; and the same with sha256sum of
  the archive, which ours has as well;
- ours: `avprep shard`'s job with `--audio wav` (the same bytes go in), everything included:
  checking each file, keys, JSON, headers, checksum, index, and the process that reads the files.

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
from extract import build_anew, cost
from PIL import Image
from rows import Row, parser_of, times, write_rows

from avprep.clips import Clip
from avprep.labels import label_set_from_names
from avprep.options import IsolationOptions, SampleOptions
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
    build_anew(clips, settings)


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
    ratios = {
        side: round(results["wav"]["wall_ms"] / results[side]["wall_ms"], 2)
        for side in ("tar", "tar_sha256")
    }
    print(f"{count} clips\n\n| | CPU ms per clip | wall ms per clip |\n|---|---|---|")
    labels = {
        "tar": "tar, sync",
        "tar_sha256": "tar, sync, sha256sum",
        "wav": "ours, WAV kept",
        "flac": "ours, WAV to FLAC",
    }
    for side, label in labels.items():
        print(f"| {label} | {results[side]['cpu_ms']:.2f} | {results[side]['wall_ms']:.2f} |")
    print(
        f"\nPacking takes {ratios['tar']:.2f} times tar's time (goal ≤ 1.5), "
        f"{ratios['tar_sha256']:.2f} times that of tar and sha256sum."
    )
    ours = f"{results['wav']['wall_ms']:.1f} ms"
    rows = [
        Row(
            f"packing {count} extracted clips into a shard, wall time a clip",
            ours,
            f"{labels[side]}: {results[side]['wall_ms']:.1f} ms",
            times(results["wav"]["wall_ms"], results[side]["wall_ms"]),
            goal,
        )
        for side, goal in (("tar", "≤ 1.5×"), ("tar_sha256", ""))
    ]
    write_rows(arguments.rows, rows)


if __name__ == "__main__":
    main()
