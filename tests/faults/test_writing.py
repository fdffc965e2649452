"""Places that cannot be written to, or not any more: one clear line, nothing half-written, and the
same command goes on when the place is mended."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from avprep.errors import UserError
from tests.faults.conftest import (
    build,
    contents,
    obey_permissions,
    run_shard,
    shard_command,
    without_torch,
)


def complaint(result: subprocess.CompletedProcess[str]) -> str:
    """The one line that a failed command ends with."""
    assert "Traceback" not in result.stderr, result.stderr
    lines = [line for line in result.stderr.splitlines() if not line.startswith(("shard:", "{"))]
    assert lines, result
    return lines[-1]


def nothing_is_half_written(out: Path, undisturbed: dict[str, bytes]) -> None:
    found = contents(out)
    assert found == {name: undisturbed[name] for name in found}
    assert not list(out.glob(".tmp-*"))


def on_a_small_disk(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a shell script in a name space in which it may mount a small file system."""
    if sys.platform != "linux" or not shutil.which("unshare"):
        pytest.skip("needs Linux' unshare")
    root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    isolated = ["unshare", "--mount", *root]
    if subprocess.run([*isolated, "true"], capture_output=True).returncode:
        pytest.skip("this system allows no mount name spaces")
    return subprocess.run(
        [*isolated, "sh", "-euc", script, "sh", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=without_torch(),
        timeout=600,
    )


# Room for the whole set or not, by the number of kB; what was written is copied out at the end.
FULL_DISK = """
disk=$1 kept=$2 size=$3; shift 3
mount -t tmpfs -o size=$size none "$disk"
status=0; "$@" || status=$?
cp -a "$disk/." "$kept/"
exit $status
"""


@pytest.mark.parametrize(
    ("size", "workers"), [("4k", 1), ("8k", 1), ("60k", 1), ("100k", 2), ("200k", 2)]
)
def test_a_full_disk_keeps_what_is_finished(
    manifest, ordinary, undisturbed, tmp_path, size, workers
):
    """Full at plan.json, at the first shard, at an index, and in the middle."""
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    kept.mkdir()
    command = shard_command(manifest, disk, "--workers", workers)
    result = on_a_small_disk(FULL_DISK, disk, kept, size, *command)
    assert result.returncode == 1
    assert f"{disk}" in complaint(result)
    assert "No space left on device" in complaint(result)
    assert "Free some space" in complaint(result)
    nothing_is_half_written(kept, undisturbed)

    assert build(ordinary, kept).complete
    assert contents(kept) == undisturbed


def test_a_disk_that_is_full_at_the_very_end(manifest, ordinary, undisturbed, tmp_path):
    """The last pages lack: failures.csv or dataset.json does not fit."""
    whole = sum(-(-len(data) // 4096) for data in undisturbed.values())
    for pages in (whole - 2, whole - 1):
        disk, kept = tmp_path / f"disk{pages}", tmp_path / f"kept{pages}"
        disk.mkdir()
        kept.mkdir()
        command = shard_command(manifest, disk, "--workers", "1")
        result = on_a_small_disk(FULL_DISK, disk, kept, f"{4 * pages}k", *command)
        assert result.returncode == 1, result.stderr
        nothing_is_half_written(kept, undisturbed)
        assert build(ordinary, kept).complete
        assert contents(kept) == undisturbed


def test_a_limit_on_file_sizes_is_named(manifest, undisturbed, tmp_path):
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

    result = run_shard(manifest, tmp_path / "s", preexec_fn=limit)
    assert result.returncode == 1
    assert "File too large" in complaint(result)
    assert "ulimit -f" in complaint(result)
    nothing_is_half_written(tmp_path / "s", undisturbed)
    assert run_shard(manifest, tmp_path / "s").returncode == 0
    assert contents(tmp_path / "s") == undisturbed


def test_a_folder_without_permission_is_refused_at_once(manifest, tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    for out in (closed, closed / "below"):
        result = run_shard(manifest, out, preexec_fn=obey_permissions)
        assert result.returncode == 2
        assert f"{out}: cannot" in complaint(result)
        assert "Permission denied" in complaint(result)


def test_a_read_only_file_system_is_refused_at_once(manifest, tmp_path):
    script = 'mount -t tmpfs -o ro none "$1"; shift; "$@"'
    result = on_a_small_disk(script, tmp_path, *shard_command(manifest, tmp_path))
    assert result.returncode == 2
    assert "Read-only file system" in complaint(result)


def test_a_finished_set_on_a_read_only_file_system_is_found_complete(manifest, tmp_path):
    assert run_shard(manifest, tmp_path).returncode == 0
    script = 'mount --bind -o ro "$1" "$1"; shift; "$@"'
    result = on_a_small_disk(script, tmp_path, *shard_command(manifest, tmp_path))
    assert result.returncode == 0, result.stderr
    assert "found 4 shards, built 0" in result.stdout


@pytest.mark.parametrize("out", ["/dev/null", "/dev/null/shards", "/proc/shards"])
def test_a_place_where_no_folder_can_be_is_refused(manifest, out):
    result = run_shard(manifest, out)
    assert result.returncode == 2
    assert out in complaint(result)


@pytest.mark.parametrize(
    "name", ["shard-000001.tar", "shard-000001.index.json", "dataset.json", "failures.csv"]
)
def test_a_folder_in_the_place_of_a_file_is_named(ordinary, undisturbed, tmp_path, name):
    for file, data in undisturbed.items():
        (tmp_path / file).write_bytes(data)
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=re.escape(f"{tmp_path / name}: cannot be written to")):
        build(ordinary, tmp_path)
    (tmp_path / name).rmdir()
    assert build(ordinary, tmp_path).complete
    assert contents(tmp_path) == undisturbed


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"shards": 1}', b"\xff\xfe"])
def test_a_damaged_plan_is_named(ordinary, tmp_path, content):
    (tmp_path / "plan.json").write_bytes(content)
    with pytest.raises(UserError, match=r"plan\.json: is damaged"):
        build(ordinary, tmp_path)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe", b'{"name": "x"}'])
def test_damaged_facts_are_made_anew(ordinary, undisturbed, tmp_path, content):
    for file, data in undisturbed.items():
        (tmp_path / file).write_bytes(data)
    for name in ("shard-000001.index.json", "dataset.json", "failures.csv"):
        (tmp_path / name).write_bytes(content)
    found = []
    assert build(ordinary, tmp_path, on_found=found.append).built == 1
    assert [(f.finished, f.damaged, f.to_build) for f in found] == [(3, ("shard-000001.tar",), 1)]
    assert contents(tmp_path) == undisturbed


def test_an_index_does_not_vouch_for_another_shard(ordinary, undisturbed, tmp_path):
    for file, data in undisturbed.items():
        (tmp_path / file).write_bytes(data)
    shutil.copy(tmp_path / "shard-000000.index.json", tmp_path / "shard-000001.index.json")
    shutil.copy(tmp_path / "shard-000000.tar", tmp_path / "shard-000001.tar")
    assert build(ordinary, tmp_path).built == 1
    assert contents(tmp_path) == undisturbed


def test_a_store_that_may_show_half_a_file_is_refused(manifest):
    result = run_shard(manifest, "sftp://somewhere/shards")
    assert result.returncode == 2
    assert "sftp://somewhere/shards: cannot be written to" in complaint(result)
