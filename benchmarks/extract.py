"""How much CPU and wall time a clip costs from file to shard, beside the published method.

Makes clips of 10 s on the spot and measures three sides on the same files:

- published, re-created: per frame a seek by number with OpenCV, the short side scaled to 224, the
  centre cut out, a JPEG file written; the sound converted to a 16 kHz WAV file by ffmpeg, and a
  second program (sox where there is one, else ffmpeg) that keeps its first channel;
- ours: `avprep shard`'s job, everything included: the decoding process and its start, frames,
  JPEG, FLAC, the archive and its checksum;
- the floor: PyAV decoding, and throwing away, just the pictures that the 10 frames depend on.

CPU time counts child processes. The rounds of all sides are interleaved, so that a busy machine
slows all of them, and medians are compared. Further rows: a mix of real clips where there are any
(`--real`), two workers beside one, a segment of an hour-long file beside a file of that segment,
and the memory of workers over many clips.

    python benchmarks/extract.py            # several minutes
    python benchmarks/extract.py --quick    # less of everything, under a minute
"""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
from PIL import Image
from rows import Row, parser_of, part, times, write_rows

from avprep.clips import Clip
from avprep.decode.frames import PUBLISHED_SECONDS, wanted_indices
from avprep.ffmpeg_binary import find_ffmpeg
from avprep.jobs import PoolOptions
from avprep.labels import label_set_from_names
from avprep.options import IsolationOptions, SampleOptions
from avprep.shards.build import ShardSetOptions, build_shard_set
from avprep.shards.format import index_name
from avprep.shards.plan import ShardJob
from avprep.shards.writer import ShardSettings, build_group

SECONDS, FRAMES, SIZE, RATE = 10, 10, 224, 30
REAL = Path(__file__).resolve().parents[2] / "shared"  # beside the repository, not part of it
REAL_FROM_GRID = 24  # clips
LABELS = label_set_from_names(["clip"])
SHARD = "shard-000000.tar"


@dataclass(frozen=True)
class Kind:
    """A sort of clip, and what is aimed at for it."""

    name: str
    size: str
    encoder: tuple[str, ...]
    suffix: str = "mp4"
    audio: tuple[str, ...] = ("-c:a", "aac", "-b:a", "128k")
    of_published: float | None = None  # goal: at most this part of the published method's CPU
    of_floor: float | None = None  # goal: at most this many times the bare decode


X264 = ("-c:v", "libx264")
KINDS = (
    Kind("H.264 360p", "640x360", (*X264, "-b:v", "700k"), of_published=1 / 5, of_floor=1.35),
    Kind("H.264 720p", "1280x720", (*X264, "-b:v", "2000k"), of_published=1 / 4, of_floor=1.12),
    Kind(
        "VP9 360p",
        "640x360",
        ("-c:v", "libvpx-vp9", "-b:v", "500k", "-deadline", "good", "-cpu-used", "5"),
        "webm",
        ("-c:a", "libopus", "-b:a", "96k"),
    ),
    Kind("HEVC 720p", "1280x720", ("-c:v", "libx265", "-preset", "fast", "-b:v", "1200k")),
)
# A zoom into the Mandelbrot set for detail and motion, a test pattern for edges, grain.
PICTURE = (
    "mandelbrot=s={size}:r=30:start_scale=1.2:end_scale=0.002:end_pts=500[a];"
    "testsrc2=s={size}:r=30,format=yuv420p[b];[a]format=yuv420p[c];"
    "[c][b]blend=all_opacity=0.75,noise=alls=5:allf=t,format=yuv420p[out0]"
)
SOUND = "anoisesrc=c=pink:r=44100:a=0.3[n];sine=f=440:b=4:r=44100[s];[n][s]amerge[out1]"


def make_clip(path: Path, kind: Kind, seconds: float = SECONDS) -> Path:
    """Encode one clip of a kind."""
    graph = PICTURE.format(size=kind.size) + ";" + SOUND
    ffmpeg("-f", "lavfi", "-i", graph, "-t", str(seconds), *kind.encoder, *kind.audio, str(path))
    return path


def ffmpeg(*arguments: str) -> None:
    """Run ffmpeg quietly."""
    command = [find_ffmpeg(), "-nostdin", "-v", "error", "-y", *arguments]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


def published(path: Path, out: Path) -> None:
    """One clip the published way."""
    capture = cv2.VideoCapture(str(path))
    rate, count = capture.get(cv2.CAP_PROP_FPS), int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    for number in range(FRAMES):
        index = int(number * min(count, int(rate * SECONDS)) / FRAMES)
        capture.set(cv2.CAP_PROP_POS_FRAMES, index - 1)
        _, bgr = capture.read()
        picture = Image.fromarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))
        scale = SIZE / min(picture.size)
        width, height = (int(side * scale) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        left, top = (width - SIZE) // 2, (height - SIZE) // 2
        picture = picture.crop((left, top, left + SIZE, top + SIZE))
        picture.save(out / f"{path.stem}_{number}.jpg")
    every_channel, first = out / "every.wav", out / f"{path.stem}.wav"
    ffmpeg("-i", str(path), "-vn", "-ar", "16000", str(every_channel))
    if sox := shutil.which("sox"):
        subprocess.run([sox, str(every_channel), str(first), "remix", "1"], check=True)
    else:
        ffmpeg("-i", str(every_channel), "-af", "pan=mono|c0=c0", str(first))
    every_channel.unlink()


def floor(path: Path) -> None:
    """Decode what the 10 frames depend on, and nothing else, with one thread."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        context.thread_count, context.thread_type = 1, "NONE"
        packets = [packet for packet in container.demux(stream) if packet.size]
        stamps = sorted(packet.pts for packet in packets)
        rate = float(stream.average_rate)
        available = min(len(stamps), int(rate * PUBLISHED_SECONDS))
        wanted = {stamps[index] for index in wanted_indices(available, FRAMES)}
        last = max(i for i, packet in enumerate(packets) if packet.pts in wanted)
        keys = [i for i, packet in enumerate(packets) if packet.is_keyframe]
        groups = zip(keys, [*keys[1:], len(packets)], strict=True)
        for begin, end in groups:
            group = packets[begin : min(end, last + 1)]
            if not any(packet.pts in wanted for packet in group):
                continue
            for packet in group:
                context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
                context.decode(packet)
        context.decode(None)


def ours(clips: list[Clip], folder: Path) -> None:
    """Build one shard of the clips, in the process that decodes for it and this one."""
    settings = ShardSettings(
        str(folder), LABELS, SampleOptions(), IsolationOptions(), fingerprint=""
    )
    rebuild(clips, settings)


def rebuild(clips: list[Clip], settings: ShardSettings) -> None:
    """One shard of the clips, in the place of the one that an earlier round left."""
    for name in (SHARD, index_name(SHARD)):
        Path(settings.out, name).unlink(missing_ok=True)
    (built,) = build_group([ShardJob(SHARD, tuple(clips))], settings)
    assert built.summary.samples == len(clips), built.summary.failures


def linked_clips(path: Path, folder: Path, count: int) -> list[Clip]:
    """The same file under many names, as clips."""
    folder.mkdir(exist_ok=True)
    clips = []
    for number in range(count):
        link = folder / f"{path.stem}-{number:05d}{path.suffix}"
        if not link.exists():
            os.link(path, link)
        clips.append(Clip(link.stem, ("clip",), video=str(link)))
    return clips


def cpu_seconds() -> float:
    """CPU time so far of this process and of its children that have ended."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def cost(work: Callable[[], object], clips: int) -> tuple[float, float]:
    """(CPU, wall) milliseconds per clip."""
    cpu, wall = cpu_seconds(), time.perf_counter()
    work()
    return (cpu_seconds() - cpu) / clips * 1000, (time.perf_counter() - wall) / clips * 1000


def medians(samples: list[tuple[float, float]]) -> tuple[float, float]:
    """Median CPU and median wall time."""
    cpu, wall = zip(*samples, strict=True)
    return statistics.median(cpu), statistics.median(wall)


Side = tuple[Callable[[], object], int]  # what to measure, and how many clips it takes


def medians_of(sides: dict[str, Side], rounds: int) -> dict[str, tuple[float, float]]:
    """(CPU, wall) milliseconds per clip of each side; their rounds take turns."""
    costs: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, (work, count) in sides.items():
            costs[side].append(cost(work, count))
    return {side: medians(samples) for side, samples in costs.items()}


def compare(kind: Kind, folder: Path, clips_per_shard: int, rounds: int) -> dict[str, object]:
    """All sides on one kind of clip."""
    path = make_clip(folder / f"{kind.name.replace(' ', '-')}.{kind.suffix}", kind)
    clips = linked_clips(path, folder / f"{path.stem}-links", clips_per_shard)
    few = max(clips_per_shard // 16, 1)
    published(path, folder)  # fills the caches
    found = medians_of(
        {
            "published": (lambda: [published(path, folder) for _ in range(few)], few),
            "ours": (lambda: ours(clips, folder), len(clips)),
            "floor": (lambda: [floor(path) for _ in range(few)], few),
        },
        rounds,
    )
    result: dict[str, object] = {"kind": kind.name, "bytes": path.stat().st_size}
    for side, (cpu, wall) in found.items():
        result[side] = {"cpu_ms": round(cpu, 1), "wall_ms": round(wall, 1)}
    result["published_over_ours"] = round(found["published"][0] / found["ours"][0], 2)
    result["ours_over_floor"] = round(found["ours"][0] / found["floor"][0], 3)
    result["goals"] = {
        "published_over_ours": kind.of_published and round(1 / kind.of_published),
        "ours_over_floor": kind.of_floor,
    }
    return result


def real_mix(real: Path, folder: Path, clips_per_shard: int, rounds: int) -> dict[str, object]:
    """Ours beside the published method on real clips: all in media/, and some of GRID's.

    Empty where there are no such clips.
    """
    whole, spoken = (sorted(real.glob(f"{name}/*.mp4")) for name in ("media", "grid/videos"))
    spoken = spoken[:: max(len(spoken) // REAL_FROM_GRID, 1)][:REAL_FROM_GRID]
    paths = whole + spoken
    if not whole or not spoken:
        return {}
    # Several times each, so that the start of the decoding process weighs as elsewhere.
    clips = [
        Clip(f"{path.stem}-{number}", ("clip",), video=str(path))
        for number in range(-(-clips_per_shard // len(paths)))
        for path in paths
    ]
    found = medians_of(
        {
            "published": (lambda: [published(path, folder) for path in paths], len(paths)),
            "ours": (lambda: ours(clips, folder), len(clips)),
        },
        rounds,
    )
    what = f"{len(whole)} real clips of about 10 s and {len(spoken)} of 3 s, CPU from file to shard"
    return {
        "what": f"{what}, per clip",
        **{side: round(cpu, 1) for side, (cpu, _) in found.items()},
    }


def start_cost(folder: Path) -> float:
    """CPU ms that a shard's decoding process takes to start and import."""
    path = make_clip(folder / "short.mp4", KINDS[0], seconds=0.2)
    clip = linked_clips(path, folder / "short-links", 9)
    one = statistics.median(cost(lambda: ours(clip[:1], folder), 1)[0] for _ in range(3))
    nine = statistics.median(cost(lambda: ours(clip, folder), 1)[0] for _ in range(3))
    return one - (nine - one) / 8


def scaling(folder: Path, clips: int, rounds: int) -> dict[str, float]:
    """Wall time of one worker over that of two, for the second half of the clips.

    Pools start in the background while the first clips are decoded, so the whole run is timed too.
    """
    path = make_clip(folder / "scaling.mp4", KINDS[0])
    batch = linked_clips(path, folder / "scaling-links", clips)
    walls: dict[int, list[float]] = {1: [], 2: []}
    for number in range(rounds):
        for workers, values in walls.items():
            out = folder / f"scaling-{workers}-{number}"
            options = ShardSetOptions(SampleOptions(), IsolationOptions(), clips // 8)
            began = time.perf_counter()
            build_shard_set(batch, LABELS, str(out), options, PoolOptions(workers))
            values.append(time.perf_counter() - began)
            shutil.rmtree(out)
    one, two = statistics.median(walls[1]), statistics.median(walls[2])
    return {"clips": clips, "one_s": round(one, 2), "two_s": round(two, 2),
            "ratio": round(one / two, 2)}  # fmt: skip


def long_file(folder: Path, rounds: int) -> dict[str, float]:
    """CPU of 10 s segments of an hour-long file over that of files of those segments."""
    minute = make_clip(folder / "minute.mp4", KINDS[0], seconds=60)
    hour = folder / "hour.mp4"
    ffmpeg("-stream_loop", "59", "-i", str(minute), "-c", "copy", str(hour))
    starts = [7 + 611.3 * number for number in range(6)]
    segments, trimmed = [], []
    for start in starts:
        path = folder / f"trimmed-{start:g}.mp4"
        cut = ("-ss", str(start), "-t", str(SECONDS))
        ffmpeg(*cut, "-i", str(hour), *KINDS[0].encoder, *KINDS[0].audio, str(path))
        trimmed.append(Clip(path.stem, ("clip",), video=str(path)))
        segments.append(
            Clip(f"s{start:g}", ("clip",), video=str(hour), start=start, end=start + SECONDS)
        )
    found = medians_of(
        {
            "segment": (lambda: ours(segments, folder), len(segments)),
            "trimmed": (lambda: ours(trimmed, folder), len(trimmed)),
        },
        rounds,
    )
    segment, trim = found["segment"][0], found["trimmed"][0]
    return {"segment_cpu_ms": round(segment, 1), "trimmed_cpu_ms": round(trim, 1),
            "ratio": round(segment / trim, 2)}  # fmt: skip


def memory(folder: Path, clips: int, workers: int = 2) -> dict[str, object]:
    """Resident memory of each worker and its decoding process while many clips are sharded."""
    path = make_clip(folder / "memory.mp4", KINDS[0])
    links = folder / "memory-links"
    linked_clips(path, links, clips)
    manifest = folder / "memory.json"
    avprep = (sys.executable, "-m", "avprep")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": True}
    subprocess.run([*avprep, "manifest", "folder", str(links), "--out", str(manifest)], **quiet)
    out = folder / "memory-shards"
    command = [*avprep, "shard", str(manifest), "--out", str(out), "--workers", str(workers),
               "--samples-per-shard", str(max(clips // workers, 1))]  # fmt: skip
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    readings: list[list[float]] = []
    done = threading.Event()
    watch = threading.Thread(target=_watch_memory, args=(run.pid, readings, done))
    watch.start()
    status = run.wait()
    done.set()
    watch.join()
    assert status == 0, f"avprep shard ended with {status}"
    per_worker = [max(values) for values in readings if len(values) == workers]
    fifth = max(len(per_worker) // 5, 1)
    return {
        "clips": clips,
        "workers": workers,
        "mb_per_worker_second_fifth": round(statistics.median(per_worker[fifth : 2 * fifth]), 1),
        "mb_per_worker_last_fifth": round(statistics.median(per_worker[-fifth:]), 1),
        "mb_per_worker_peak": round(max(per_worker), 1),
    }


def _watch_memory(parent: int, readings: list[list[float]], done: threading.Event) -> None:
    """Proportional memory in MB of each decoding process with its share of the command's own."""
    while not done.wait(0.5):
        parents = _parents()
        servers = [pid for pid in parents if _is_decoder(pid) and _below(pid, parent, parents)]
        readings.append([_pss(pid) + _pss(parents[pid]) / len(servers) for pid in servers])


def _parents() -> dict[int, int]:
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status = (entry / "stat").read_text()
            except OSError:
                continue
            found[int(entry.name)] = int(status.rpartition(")")[2].split()[1])
    return found


def _below(pid: int, ancestor: int, parents: dict[int, int]) -> bool:
    while pid and pid != ancestor:
        pid = parents.get(pid, 0)
    return pid == ancestor


def _is_decoder(pid: int) -> bool:
    try:
        return b"avprep.encode.server" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _pss(pid: int) -> float:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    return int(text.split("\nPss:")[1].split()[0]) / 1024


def report(results: dict[str, object]) -> None:
    """Print the results as Markdown."""
    if kinds := results["kinds"]:
        print("| clips of 10 s | published, CPU ms (wall) | ours | bare decode "
              "| published ÷ ours (goal) | ours ÷ bare decode (goal) |")  # fmt: skip
        print("|---|---|---|---|---|---|")
    for row in kinds:
        sides = (row["published"], row["ours"], row["floor"])
        cells = " | ".join(f"{side['cpu_ms']:.0f} ({side['wall_ms']:.0f})" for side in sides)
        signs = {"published_over_ours": "≥", "ours_over_floor": "≤"}
        goals = {
            key: f" ({sign} {row['goals'][key]:g})" if row["goals"][key] else ""
            for key, sign in signs.items()
        }
        print(f"| {row['kind']} | {cells} "
              f"| {row['published_over_ours']:.1f}{goals['published_over_ours']} "
              f"| {row['ours_over_floor']:.2f}{goals['ours_over_floor']} |")  # fmt: skip
    if start := results.get("start_cpu_ms"):
        print(f"\nStart of a decoding process, included above, once per shard: {start:.0f} ms CPU.")
    if mix := results.get("real"):
        print(f"\n{mix['what']}: {mix['ours']:.0f} ms, published {mix['published']:.0f} ms "
              "(goal ≤ 1/5).")  # fmt: skip
    if scale := results.get("scaling"):
        print(
            f"\nTwo workers: {scale['ratio']:.2f} times as fast as one (goal ≥ 1.8); "
            f"{scale['clips']} clips, {scale['one_s']:.1f} s and {scale['two_s']:.1f} s."
        )
    if long := results.get("long_file"):
        print(f"\nA segment of an hour-long file: {long['segment_cpu_ms']:.0f} ms CPU, "
              f"{long['ratio']:.2f} times a file of just that segment (goal ≤ 2).")  # fmt: skip
    if memory_row := results.get("memory"):
        print(f"\nMemory per worker with its decoding process, {memory_row['clips']} clips on "
              f"{memory_row['workers']} workers: {memory_row['mb_per_worker_second_fifth']:.0f} MB "
              f"in the second fifth, {memory_row['mb_per_worker_last_fifth']:.0f} MB in the last, "
              f"peak {memory_row['mb_per_worker_peak']:.0f} MB (goal ≤ 300).")  # fmt: skip


def rows(results: dict[str, object]) -> list[Row]:
    """The results for the table of all benchmarks."""
    table = []
    for kind in results["kinds"]:
        what, ours = f"clip of 10 s, {kind['kind']}, CPU from file to shard", kind["ours"]["cpu_ms"]
        goals = kind["goals"]
        published, floor_ms = kind["published"]["cpu_ms"], kind["floor"]["cpu_ms"]
        goal = f"≤ 1/{goals['published_over_ours']:g}" if goals["published_over_ours"] else ""
        beside = f"published method, re-created: {published:.0f} ms"
        table.append(Row(what, f"{ours:.0f} ms", beside, part(ours, published), goal))
        goal = f"≤ {goals['ours_over_floor']:g}×" if goals["ours_over_floor"] else ""
        beside = f"bare decode of what the frames need: {floor_ms:.0f} ms"
        table.append(Row(what, f"{ours:.0f} ms", beside, times(ours, floor_ms), goal))
    if mix := results.get("real"):
        beside = f"published method, re-created: {mix['published']:.0f} ms"
        ratio = part(mix["ours"], mix["published"])
        table.append(Row(mix["what"], f"{mix['ours']:.0f} ms", beside, ratio, "≤ 1/5"))
    if scale := results.get("scaling"):
        what = f"{scale['clips']} clips of 10 s to shards, wall time"
        ratio = f"{scale['ratio']:.2f}× as fast"
        ours, beside = f"two workers: {scale['two_s']:.1f} s", f"one worker: {scale['one_s']:.1f} s"
        table.append(Row(what, ours, beside, ratio, "≥ 1.8×"))
    if long := results.get("long_file"):
        what, ours = "10 s of an hour-long file, CPU", f"{long['segment_cpu_ms']:.0f} ms"
        beside = f"a file of just that segment: {long['trimmed_cpu_ms']:.0f} ms"
        table.append(Row(what, ours, beside, f"{long['ratio']:.2f}×", "≤ 2×"))
    if watched := results.get("memory"):
        what = f"memory of a worker and its decoding process, {watched['clips']:,} clips"
        last, second = watched["mb_per_worker_last_fifth"], watched["mb_per_worker_second_fifth"]
        ours = f"{last:.0f} MB in the last fifth, {watched['mb_per_worker_peak']:.0f} MB at most"
        beside = f"in the second fifth: {second:.0f} MB"
        table.append(Row(what, ours, beside, times(last, second), "≤ 300 MB"))
    return table


PARTS = ("kinds", "real", "scaling", "long-file", "memory")


def main() -> None:
    """Measure and print."""
    sizes = {
        "clips": (64, 8, "clips per shard and round"),
        "rounds": (3, 1, "rounds of each side"),
        "memory-clips": (500, 48, "clips to watch the memory over"),
    }
    parser = parser_of(__doc__, **sizes)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--kinds", nargs="+", choices=[kind.name for kind in KINDS],
                        default=[kind.name for kind in KINDS])  # fmt: skip
    parser.add_argument("--real", type=Path, default=REAL, metavar="FOLDER",
                        help="real clips, in media/ and grid/videos/")  # fmt: skip
    arguments = parser.parse_args()
    clips, rounds, memory_clips = arguments.clips, arguments.rounds, arguments.memory_clips
    results: dict[str, object] = {"kinds": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "kinds" in arguments.parts:
            chosen = [kind for kind in KINDS if kind.name in arguments.kinds]
            results["kinds"] = [compare(kind, folder, clips, rounds) for kind in chosen]
            results["start_cpu_ms"] = round(start_cost(folder), 1)
        if "real" in arguments.parts:
            results["real"] = real_mix(arguments.real, folder, clips, rounds)
            if not results["real"]:
                print(f"skipped: {arguments.real} has no real clips in media/ and grid/videos/")
        if "scaling" in arguments.parts:
            results["scaling"] = scaling(folder, clips, max(rounds - 1, 1))
        if "long-file" in arguments.parts:
            results["long_file"] = long_file(folder, rounds)
        if "memory" in arguments.parts:
            results["memory"] = memory(folder, memory_clips)
    report(results)
    write_rows(arguments.rows, rows(results))


if __name__ == "__main__":
    main()
