"""Several processes on one folder share the work, and clean up after the dead alone."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avprep import storage
from avprep.errors import UserError
from tests.faults.conftest import (
    PATIENCE,
    build,
    contents,
    run_shard,
    shard_command,
    summary_of,
    wait_until,
    without_torch,
)


def start(manifest, out, *options):
    return subprocess.Popen(
        shard_command(manifest, out, "--json", *options),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=without_torch(),
    )


def test_three_commands_at_once_on_one_folder_do_not_collide(manifest, undisturbed, tmp_path):
    """All three begin with an empty folder and want all the shards."""
    out = tmp_path / "s"
    running = [start(manifest, out, "--workers", "1") for _ in range(3)]
    for process in running:
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, errors
    assert contents(out) == undisturbed
    assert not list(out.glob(".tmp-*"))


def test_parts_at_once_make_the_whole(manifest, undisturbed, tmp_path):
    out = tmp_path / "s"
    running = [start(manifest, out, "--workers", "1", "--part", f"{k}/3") for k in (1, 2, 3)]
    for process in running:
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, errors
    assert contents(out) == undisturbed


def test_a_second_command_passes_over_what_the_first_builds_meanwhile(
    ordinary, undisturbed, tmp_path
):
    out = tmp_path / "s"

    def build_two_elsewhere(found):
        build(ordinary, out, part=(1, 2))

    report = build(ordinary, out, on_found=build_two_elsewhere)
    assert (report.found, report.built) == (2, 2)
    assert contents(out) == undisturbed


def test_two_plans_at_once_in_one_folder_cannot_both_win(ordinary, tmp_path, monkeypatch):
    """The other plan comes between looking and claiming."""
    out = tmp_path / "s"
    strangers = storage.strangers

    def meanwhile(folder, marker):
        found = strangers(folder, marker)
        monkeypatch.setattr(storage, "strangers", strangers)
        build(ordinary[:2], out)
        return found

    monkeypatch.setattr(storage, "strangers", meanwhile)
    with pytest.raises(UserError, match="another manifest"):
        build(ordinary, out)


def test_a_run_says_what_it_found(manifest, undisturbed, tmp_path):
    for name, data in undisturbed.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "shard-000000.tar").unlink()
    (tmp_path / "shard-000001.index.json").unlink()
    (tmp_path / "shard-000002.tar").write_bytes(b"x")
    left_behind = leave_behind(tmp_path)
    result = run_shard(manifest, tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stderr.splitlines() == [
        f"{tmp_path}: deleted 1 unfinished file of processes that are gone",
        f"{tmp_path}: builds 2 damaged shards again: shard-000000.tar, shard-000002.tar",
        f"{tmp_path}: 1 shard finished, 3 to be built",
    ]
    assert "found 1 shard, built 3" in result.stdout
    assert not left_behind.exists()
    assert contents(tmp_path) == undisturbed
    summary = summary_of(run_shard(manifest, tmp_path, "--json"))
    assert (summary["shards_found"], summary["shards_built"]) == (4, 0)


WRITE_AND_WAIT = """
import sys
from avprep import storage
with storage.scratch_file(sys.argv[1]) as file:
    file.write(b"x" * 1000)
    file.flush()
    print(file.path, flush=True)
    sys.stdin.read()
"""


def write_and_wait(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE_AND_WAIT, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=without_torch(),
    )
    path = folder / process.stdout.readline().strip().rpartition("/")[2]
    assert path.exists()
    return process, path


def leave_behind(folder):
    """The unfinished file of a process that was killed."""
    process, path = write_and_wait(folder)
    process.kill()
    process.communicate()
    assert path.exists()
    return path


def test_the_file_of_a_living_writer_stays_and_that_of_a_dead_one_goes(tmp_path):
    process, path = write_and_wait(tmp_path)
    assert storage.remove_abandoned(tmp_path) == 0
    assert path.exists()
    process.kill()
    process.communicate()
    assert storage.remove_abandoned(tmp_path) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("clock", ["ours is right", "ours is a year ahead", "a year behind"])
def test_the_file_of_another_machine_stays_for_a_week(tmp_path, clock, monkeypatch):
    """Whatever this machine's clock says: the file server's is asked."""
    young, old = (tmp_path / f".tmp-0000000a-{k:016x}" for k in (1, 2))
    now = time.time()
    year = 365 * 24 * 3600
    wrong = {"ours is right": 0, "ours is a year ahead": year, "a year behind": -year}[clock]
    monkeypatch.setattr(time, "time", lambda: now + wrong)
    for path, age in ((young, 6), (old, 8)):
        path.write_bytes(b"x")
        os.utime(path, (now - age * 24 * 3600,) * 2)
    assert storage.remove_abandoned(tmp_path) == 1
    assert young.exists()
    assert not old.exists()


def test_other_hidden_files_are_left_alone(tmp_path):
    for name in (".tmp-mine", ".tmp-0000000a-1", ".nfs0001", ".tmp-zzzzzzzz-0123456789abcdef"):
        (tmp_path / name).write_bytes(b"x")
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / ".tmp-0000000a-0123456789abcdef").symlink_to(tmp_path / ".tmp-mine")
    assert storage.remove_abandoned(tmp_path) == 0
    assert len(list(tmp_path.iterdir())) == 5


def test_writers_and_cleaners_at_once_lose_no_file(tmp_path):
    """A cleaner may find a file before its writer has locked it."""
    code = (
        "import sys\n"
        "from avprep import storage\n"
        "for number in range(300):\n"
        "    storage.write_atomic(f'{sys.argv[1]}/{sys.argv[2]}-{number}', b'whole')\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", code, tmp_path, str(k)], env=without_torch())
        for k in range(2)
    ]
    while any(writer.poll() is None for writer in writers):
        storage.remove_abandoned(tmp_path)
    assert [writer.returncode for writer in writers] == [0, 0]
    found = list(tmp_path.iterdir())
    assert len(found) == 600
    assert all(path.read_bytes() == b"whole" for path in found)


@given(st.lists(st.sampled_from(["tar", "index", "tmp", "dataset", "failures"]), max_size=8))
@settings(max_examples=8, deadline=None)
def test_whatever_is_deleted_comes_back_the_same(ordinary, undisturbed, tmp_path_factory, losses):
    out = tmp_path_factory.mktemp("loss")
    for name, data in undisturbed.items():
        (out / name).write_bytes(data)
    dice = random.Random(len(losses))
    for loss in losses:
        shard = f"shard-{dice.randrange(4):06d}"
        name = {
            "tar": f"{shard}.tar",
            "index": f"{shard}.index.json",
            "tmp": ".tmp-0000000a-0123456789abcdef",
            "dataset": "dataset.json",
            "failures": "failures.csv",
        }[loss]
        if loss == "tmp":
            (out / name).write_bytes(b"x")
        else:
            (out / name).unlink(missing_ok=True)
    assert build(ordinary, out).complete
    assert contents(out) == undisturbed


def test_a_killed_command_can_be_followed_before_its_workers_are_gone(
    manifest, undisturbed, tmp_path
):
    out = tmp_path / "s"
    first = start(manifest, out, "--workers", "2")
    wait_until(lambda: out.is_dir() and list(out.glob(".tmp-*")))
    first.kill()
    first.wait()
    result = run_shard(manifest, out, "--workers", "2")
    assert result.returncode == 0, result.stderr
    assert contents(out) == undisturbed


def test_a_file_where_a_folder_is_needed_is_named(tmp_path):
    (tmp_path / "set").write_text("notes")
    with pytest.raises(UserError, match=r"set: is a file, where a folder is needed\. Choose"):
        storage.make_folder(tmp_path / "set")
    assert (tmp_path / "set").read_text() == "notes"
