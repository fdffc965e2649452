"""kill -9 at any moment, of anything; Ctrl-C; and what the next run makes of it."""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from avprep import storage
from avprep.clips import Clip
from avprep.manifest.model import write_manifest
from avprep.options import IsolationOptions
from tests.faults.conftest import (
    PATIENCE,
    build,
    contents,
    default_interrupt,
    kin,
    shard_command,
    wait_until,
    without_torch,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")

SEED = int(os.environ.get("KILL_SEED", "0")) or secrets.randbelow(10**6)


class Run:
    """`avprep shard` in a process of its own, whose descendants can be told from all others."""

    def __init__(self, manifest: Path, out: Path, *options: object, env=None) -> None:
        self.token = f"avprep-test-{secrets.token_hex(8)}"
        self.process = subprocess.Popen(
            shard_command(manifest, out, *options),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**(env or without_torch()), "TEST_TOKEN": self.token},
            start_new_session=True,
            preexec_fn=default_interrupt,
        )

    def descendants(self) -> list[int]:
        return [pid for pid in kin(self.token) if pid != self.process.pid]

    def end(self, seconds: float = PATIENCE) -> tuple[int, str]:
        _, errors = self.process.communicate(timeout=seconds)
        return self.process.returncode, errors


def whole_or_absent(out: Path, undisturbed: dict[str, bytes]) -> None:
    for name, data in contents(out).items() if out.exists() else ():
        assert data == undisturbed[name], name


@pytest.fixture(scope="module")
def usual_seconds(manifest, tmp_path_factory) -> float:
    """How long an undisturbed run takes, on this machine as it is now."""
    started = time.monotonic()
    assert Run(manifest, tmp_path_factory.mktemp("usual"), "--workers", "2").end()[0] == 0
    return time.monotonic() - started


def test_killed_at_random_moments_and_resumed_is_byte_identical(
    manifest, ordinary, undisturbed, usual_seconds, tmp_path
):
    """Ten times kill -9 of the parent, each run going on where the last one was torn away."""
    dice = random.Random(SEED)
    out = tmp_path / "0"
    for number in range(1, 11):
        run = Run(manifest, out, "--workers", "2")
        time.sleep(dice.uniform(0.2, 1.0) * usual_seconds)
        run.process.kill()
        run.end()
        # Its workers may live for another moment, into the next round: they must not harm it.
        whole_or_absent(out, undisturbed)
        if (out / "dataset.json").exists():
            assert contents(out) == undisturbed, f"KILL_SEED={SEED}"
            out = tmp_path / str(number)
    wait_until(lambda: not run.descendants())
    assert build(ordinary, out, workers=2).complete
    assert contents(out) == undisturbed, f"KILL_SEED={SEED}"
    assert not list(out.glob(".tmp-*"))


def test_killed_workers_cost_nothing(manifest, undisturbed, usual_seconds, tmp_path):
    """Five times kill -9 of two processes below the run, which goes on.

    They die together: a clip whose process dies twice is given up.
    """
    dice = random.Random(SEED)
    for number in range(5):
        out = tmp_path / str(number)
        run = Run(manifest, out, "--workers", "2")
        time.sleep(dice.uniform(0.1, 1) * usual_seconds)
        victims = run.descendants()
        for victim in dice.sample(victims, min(2, len(victims))):
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
        code, errors = run.end()
        assert code == 0, (errors, f"KILL_SEED={SEED}")
        assert contents(out) == undisturbed, f"KILL_SEED={SEED}"
        assert not list(out.glob(".tmp-*"))
        wait_until(lambda run=run: not run.descendants())


@pytest.mark.parametrize(
    ("backend", "number"),
    [
        *(("local", signal.SIGINT), ("local", signal.SIGTERM)),
        *(("dask", signal.SIGINT), ("ray", signal.SIGINT)),
    ],
)
def test_ctrl_c_and_sigterm_are_130_leave_no_process_and_can_be_resumed(
    manifest, ordinary, undisturbed, tmp_path, backend, number
):
    """As a terminal sends the one, and Slurm the other: to every process of the command."""
    module = {"dask": "distributed", "ray": "ray"}.get(backend, "joblib")
    pytest.importorskip(module, reason=f"needs the extra {backend}")
    out = tmp_path / "s"
    run = Run(manifest, out, "--workers", "2", "--backend", backend)
    wait_until(lambda: list(out.glob("*.tar")) or run.process.poll() is not None)
    os.killpg(run.process.pid, number)
    code, errors = run.end()
    assert code == 130, errors
    assert errors.endswith("Interrupted: run the same command again to resume from here.\n")
    assert "Traceback" not in errors
    wait_until(lambda: not run.descendants())
    whole_or_absent(out, undisturbed)
    assert build(ordinary, out).complete
    assert contents(out) == undisturbed
    assert not list(out.glob(".tmp-*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_clips_that_never_end_end_with_the_command(hostile_decoder, clip, tmp_path, number):
    """No thread waits for the time limit, and no child outlives a killed parent."""
    clips = [Clip(name, video=str(tmp_path / f"{name}.mp4")) for name in ("hang0", "hang1")]
    for entry in clips:
        Path(entry.video).write_bytes(clip.read_bytes())
    write_manifest(tmp_path / "m.json", clips)
    out = tmp_path / "s"
    options = ("--workers", "2", "--samples-per-shard", "1", "--time-limit", "100000")
    run = Run(tmp_path / "m.json", out, *options, env=hostile_decoder)
    wait_until(lambda: len(run.descendants()) == 2)
    os.killpg(run.process.pid, number)
    assert run.end()[0] == (130 if number == signal.SIGINT else -number)
    wait_until(lambda: not run.descendants())
    assert contents(out).keys() == {"plan.json"}
    assert not list(out.glob(".tmp-*"))  # a shard is begun with its first sample


def test_an_interrupted_prediction_does_not_wait_for_clips_that_never_end(
    hostile_decoder, clip, tmp_path, monkeypatch
):
    from cavmae.evaluation.options import PredictOptions
    from cavmae.evaluation.predict import ReaderPool

    monkeypatch.syspath_prepend(hostile_decoder["PYTHONPATH"].split(os.pathsep)[0])
    hanging = [tmp_path / f"hang{k}.mp4" for k in range(2)]
    for path in hanging:
        path.write_bytes(clip.read_bytes())
    options = PredictOptions(
        checkpoint=tmp_path, workers=1, limits=IsolationOptions(time_limit=PATIENCE)
    )
    started = time.monotonic()
    with ReaderPool(options, "multimodal") as pool:
        assert next(pool.read_all([clip, *hanging]))[0] == clip
    assert time.monotonic() - started < PATIENCE


@pytest.mark.parametrize("moment", ["before the shard", "before the index", "after the index"])
@pytest.mark.parametrize("retry_failed", [False, True])
def test_killed_at_a_rename(ordinary, undisturbed, tmp_path, moment, retry_failed):
    """The process that builds a shard dies between two steps; nothing is taken for whole."""
    out = tmp_path / "s"
    code = (
        "import os, signal, sys\n"
        "from avprep import storage\n"
        "from tests.faults.conftest import build\n"
        "from avprep.clips import Clip\n"
        "def die(*_): os.kill(os.getpid(), signal.SIGKILL)\n"
        "publish, write = storage.ScratchFile.publish, storage.write_atomic\n"
        "def write_then_die(path, data):\n"
        "    write(path, data)\n"
        "    'index' in path and die()\n"
        "def die_or_write(path, data): die() if 'index' in path else write(path, data)\n"
        "moment = sys.argv[1]\n"
        "if moment == 'before the shard':\n"
        "    storage.ScratchFile.publish = lambda self, path: "
        "die() if '.tar' in str(path) else publish(self, path)\n"
        "storage.write_atomic = {'before the index': die_or_write,"
        " 'after the index': write_then_die}.get(moment, write)\n"
        f"clips = [Clip(*pair[:1], video=pair[1]) for pair in {pairs(ordinary)!r}]\n"
        f"build(clips, {str(out)!r}, retry_failed={retry_failed})\n"
    )
    died = subprocess.run([sys.executable, "-c", code, moment], env=without_torch())
    assert died.returncode == -signal.SIGKILL
    whole_or_absent(out, undisturbed)
    report = build(ordinary, out, retry_failed=retry_failed)
    assert report.found == (moment == "after the index")
    assert contents(out) == undisturbed
    assert not list(out.glob(".tmp-*"))


def pairs(clips) -> list[tuple[str, str]]:
    return [(clip.video_id, clip.video) for clip in clips]


def test_a_mended_shard_torn_away_is_never_vouched_for_by_its_old_index(
    ordinary, clip, tmp_path, monkeypatch
):
    """--retry-failed dies between the new shard and its index: the old index must be gone."""
    video = tmp_path / "mended.mp4"
    clips = [ordinary[0], Clip("mended", video=str(video))]
    out = tmp_path / "s"
    assert build(clips, out).failures[0].cause == "missing"
    assert (out / "dataset.json").exists()
    video.write_bytes(clip.read_bytes())

    def torn_away(path, data):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_atomic", torn_away)
        with pytest.raises(KeyboardInterrupt):
            build(clips, out, retry_failed=True)
    assert not (out / "dataset.json").exists()
    assert not list(out.glob("*.index.json"))
    report = build(clips, out)
    assert (report.samples, report.failures) == (2, ())
    assert build(clips, tmp_path / "fresh").complete
    assert contents(out) == contents(tmp_path / "fresh")
