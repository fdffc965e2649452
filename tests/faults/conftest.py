"""Tiny real clips, the commands as processes, and faults injected into the real thing."""

from __future__ import annotations

import contextlib
import csv
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from avprep.clips import Clip
from avprep.jobs import PoolOptions
from avprep.labels import LabelSet
from avprep.manifest.model import write_manifest
from avprep.options import BuildOptions, IsolationOptions, Part, SampleOptions
from avprep.shards.build import BuildReport, ShardSetOptions, build_shard_set
from avprep.shards.format import read_dataset, read_index, split_members
from tests.conftest import REPOSITORY
from tests.media import run_ffmpeg

ORDINARY = 8


def make_clip(path: Path, tone: int = 440, seconds: float = 0.3) -> Path:
    """A video of one small moving picture and one tone."""
    run_ffmpeg(
        *("-f", "lavfi", "-i", f"testsrc=size=64x48:rate=10:duration={seconds}"),
        *("-f", "lavfi", "-i", f"sine=frequency={tone}:duration={seconds}"),
        *("-preset", "ultrafast", "-pix_fmt", "yuv420p", "-shortest", path),
    )
    return path


@pytest.fixture(scope="session")
def clip(tmp_path_factory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clip") / "clip.mp4")


@pytest.fixture(scope="session")
def ordinary(tmp_path_factory) -> list[Clip]:
    """Clips without fault, each another tone."""
    folder = tmp_path_factory.mktemp("ordinary")
    paths = [make_clip(folder / f"tone{k}.mp4", 200 + 50 * k) for k in range(ORDINARY)]
    return [Clip(path.stem, video=str(path)) for path in paths]


@pytest.fixture(scope="session")
def manifest(ordinary, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("manifest") / "m.json"
    write_manifest(path, ordinary)
    return path


@pytest.fixture(scope="session")
def undisturbed(manifest, tmp_path_factory) -> dict[str, bytes]:
    """The files of the shard set that `manifest` makes, two clips per shard."""
    out = tmp_path_factory.mktemp("undisturbed") / "shards"
    result = run_shard(manifest, out)
    assert result.returncode == 0, result.stderr
    return contents(out)


def shard_command(manifest: Path, out: object, *options: object) -> list[str]:
    """`avprep shard`, two clips per shard unless `options` say otherwise."""
    command = (sys.executable, "-m", "avprep", "shard", manifest, "--out", out, *options)
    return [*map(str, command), *usual("--samples-per-shard", "2", options)]


def usual(option: str, value: str, options: Sequence[object]) -> list[str]:
    """An option, unless it is among others; the commands refuse one that is given twice."""
    return [] if option in options else [option, value]


def run_shard(
    manifest: Path, out: object, *options: object, **kwargs
) -> subprocess.CompletedProcess[str]:
    """`avprep shard`, two clips per shard and one worker unless `options` say otherwise."""
    command = shard_command(manifest, out, *options, *usual("--workers", "1", options))
    kwargs.setdefault("env", without_torch())
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, **kwargs)


def build(
    clips: list[Clip],
    out: object,
    workers: int = 1,
    backend="local",
    part=(1, 1),
    retry_failed=False,
    **kwargs,
) -> BuildReport:
    """The same in this process, for tests that need no process of its own."""
    options = ShardSetOptions(SampleOptions(), IsolationOptions(), 2)
    pool = PoolOptions(workers, backend, kwargs.pop("address", ""))
    which = BuildOptions(Part(*part), retry_failed)
    return build_shard_set(clips, LabelSet((), ()), str(out), options, pool, which, **kwargs)


def environment(*folders: Path) -> dict[str, str]:
    """This process's, with `folders` before the repository where Python looks for modules."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*folders, REPOSITORY]))}


def without_torch(*folders: Path) -> dict[str, str]:
    """The same for `avprep`, which needs no PyTorch: webdataset would import it, for seconds."""
    return environment(*folders, REPOSITORY / "tests" / "without_torch")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a shard set by name; what dead writers left behind does not count."""
    return {
        path.name: path.read_bytes()
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".tmp-")
    }


def kin(token: str) -> list[int]:
    """Processes that inherited `token` in their environment, the oldest first."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            if token.encode() in (folder / "environ").read_bytes() and state != "Z":
                found.append(int(folder.name))
    return sorted(found)


PATIENCE = 600.0  # seconds after which a test gives up; a busy machine may need many


def wait_until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait for an event; only its failing to come takes all the time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def default_interrupt() -> None:
    """A shell that runs the tests in the background makes them deaf to Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def obey_permissions() -> None:
    """Take from root the right to pass over permissions, for the program that starts next."""
    drop_from_bounding_set, dac_override, dac_read_search = 24, 1, 2
    for capability in (dac_override, dac_read_search):
        ctypes.CDLL(None).prctl(drop_from_bounding_set, capability, 0, 0, 0)


def failures_of(out: Path) -> dict[str, dict[str, str]]:
    with (out / "failures.csv").open(newline="") as file:
        return {row["video_id"]: row for row in csv.DictReader(file)}


def summary_of(result: subprocess.CompletedProcess[str]) -> dict:
    return json.loads(result.stdout)


# Python reads a module of this name as it starts: here, that of the process that decodes.
_INJECTION = """
import ctypes, os, signal, sys

def inject(path):
    if "segfault" in path:
        ctypes.string_at(0)
    if "hang" in path:
        signal.pause()
    if "exhausts-memory" in path:
        [bytearray(1 << 28) for _ in range(64)]
    if "killed-by-the-system" in path:
        os.kill(os.getpid(), signal.SIGKILL)

if "avprep.encode.server" in sys.orig_argv:
    import avprep.decode

    decode = avprep.decode.decode_with_pyav

    def decode_with_faults(request):
        inject(str(request.path))
        return decode(request)

    avprep.decode.decode_with_pyav = decode_with_faults
"""


@pytest.fixture(scope="session")
def hostile_decoder(tmp_path_factory) -> dict[str, str]:
    """Environment in which decoding crashes, hangs or eats memory, by the name of the clip."""
    folder = tmp_path_factory.mktemp("injection")
    (folder / "sitecustomize.py").write_text(_INJECTION)
    return without_torch(folder)


def samples_of(out: Path) -> dict[str, dict[str, bytes]]:
    """Members of each sample by id; of their JSON all but `source`."""
    found = {}
    for shard in read_dataset(out).shards:
        data = (out / shard.name).read_bytes()
        for entry in read_index(out, shard.name).samples:
            sample = split_members(data[entry.offset : entry.offset + entry.size], entry.key)
            members = {name: bytes(content) for name, content in sample.items()}
            facts = json.loads(members["json"])
            del facts["source"]
            found[entry.video_id] = {**members, "json": json.dumps(facts).encode()}
    return found


@pytest.fixture(scope="session")
def expected(ordinary, tmp_path_factory) -> dict[str, dict[str, bytes]]:
    """The samples of the ordinary clips."""
    out = tmp_path_factory.mktemp("expected")
    build(ordinary, out)
    return samples_of(out)
