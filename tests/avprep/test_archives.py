"""An archive is listed as far as it is whole, and nothing in it does harm."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import lzma
import os
import re
import subprocess
import tarfile
import zipfile
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avprep.errors import UserError, WorkFailed
from avprep.manifest.model import read_manifest
from avprep.origins.archives import read_tar
from avprep.storage import archives, list_archive, members
from tests.avprep.test_manifest_commands import run

SUFFIXES = ("tar", "tar.gz", "tgz", "tar.bz2", "tar.xz", "txz", "zip")
_MODES = {"tar": "w", "bz2": "w:bz2", "xz": "w:xz", "txz": "w:xz"}


def pack(path, files):
    """An archive, by its suffix, of files given as name → content."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return path
    with tarfile.open(path, _MODES.get(path.suffix[1:], "w:gz")) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def report_of(folder, status):
    """Paths and details of a report's lines of one status."""
    lines = (folder / "m.report.csv").read_text().splitlines()
    return [line.split(",", 5)[5] for line in lines if line.startswith(f"{status},")]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_names_are_those_of_the_archive(suffix, tmp_path):
    long = "d" * 120 + "/" + "e" * 120 + ".mp4"
    files = {"a.mp4": b"x", "v/ü b.MKV": b"y" * 1000, long: b"", "v/a.txt": b"z"}
    listing = list_archive(str(pack(tmp_path / f"x.{suffix}", files)))
    assert listing == archives.Listing(names=list(files))


@given(st.lists(st.integers(0, 1300), min_size=1, max_size=5), st.floats(0, 1), st.booleans())
def test_a_tar_cut_anywhere_gives_every_whole_file_before_the_cut(sizes, share, is_packed):
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w") as archive:
        for number, size in enumerate(sizes):
            member = tarfile.TarInfo(f"{number}.mp4")
            member.size = size
            archive.addfile(member, io.BytesIO(os.urandom(size)))
    plain = memory.getvalue()
    ends, place = [], 0
    for size in sizes:
        ends.append(place + 512 + size)
        place += 512 + -(-size // 512) * 512
    content = gzip.compress(plain) if is_packed else plain
    cut = content[: int(len(content) * share)]
    left = len(zlib.decompressobj(31).decompress(cut) if is_packed else cut)
    listing = archives.list_tar(io.BytesIO(cut), "")
    assert listing.names == [f"{n}.mp4" for n, end in enumerate(ends) if end <= left]
    assert bool(listing.damage) == (left < place + tarfile.BLOCKSIZE)


KINDS = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE)
NAMES = st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1)


@given(
    st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    st.lists(
        st.tuples(NAMES, st.integers(0, 40), st.sampled_from(KINDS), st.integers(0, 1300)),
        max_size=6,
    ),
)
def test_members_are_those_that_tarfile_finds(kind, described):
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w", format=kind) as archive:
        for name, folders, type_, size in described:
            member = tarfile.TarInfo("folder/" * folders + name)
            member.type, member.size = type_, size if type_ in KINDS[:3] else 0
            with contextlib.suppress(ValueError):  # too long for this format
                archive.addfile(member, io.BytesIO(bytes(member.size)))
    content = memory.getvalue()
    found = list(members.tar_members(members.Front(io.BytesIO(content)).read_at))
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        expected = [(m.name, m.offset, m.offset_data, m.size, m.isreg()) for m in archive]
    assert expected == [
        (one.name.rstrip("/"), one.begin, one.start, one.size, not one.fault) for one in found
    ]


def test_a_tar_that_is_compressed_as_none_is_read_names_the_program(tmp_path):
    (tmp_path / "x.tar").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(100))
    found = list_archive(str(tmp_path / "x.tar")).damage
    assert found == "is not a tar (compressed; unpack it with unzstd)"


def test_a_file_that_the_archive_has_twice_counts_once(tmp_path):
    path = tmp_path / "x.tar"
    pack(path, {"a.mp4": b"old"})
    with tarfile.open(path, "a") as archive:
        member = tarfile.TarInfo("a.mp4")
        archive.addfile(member)
    assert list_archive(str(path)).names == ["a.mp4"]


def test_a_gzip_file_of_several_streams_is_one_tar(tmp_path):
    plain = pack(tmp_path / "x.tar", {"a.mp4": os.urandom(3000), "b.mp4": os.urandom(3000)})
    content = plain.read_bytes()
    path = tmp_path / "x.tar.gz"
    path.write_bytes(gzip.compress(content[:2000]) + gzip.compress(content[2000:]) + bytes(300))
    listing = list_archive(str(path))
    assert listing.names == ["a.mp4", "b.mp4"]
    assert not listing.damage


HOSTILE = {
    "../../x.mp4": "leads out of the archive",
    "/etc/x.mp4": "leads out of the archive",
    "v/../../x.mp4": "leads out of the archive",
    "v/a::b.mp4": "contains '::'",
}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_names_that_lead_elsewhere_are_lost_with_the_reason(suffix, tmp_path):
    path = pack(tmp_path / f"x.{suffix}", {**dict.fromkeys(HOSTILE, b"x"), "v/good.mp4": b"x"})
    printed = run("manifest", "folder", path, "--out", tmp_path / "m.json")
    assert [clip.video_id for clip in read_manifest(tmp_path / "m.json")] == ["good"]
    assert f"{len(HOSTILE)} unusable files" in printed
    lost = report_of(tmp_path, "lost")
    for name, reason in HOSTILE.items():
        assert any(name in line and reason in line for line in lost), (name, lost)


def test_links_and_devices_are_lost_with_the_reason(tmp_path):
    path = pack(tmp_path / "x.tar", {"good.mp4": b"x", "notes.txt": b"x"})
    kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)
    with tarfile.open(path, "a") as archive:
        for number, kind in enumerate(kinds):
            member = tarfile.TarInfo(f"{number}.mp4")
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    run("manifest", "folder", path, "--out", tmp_path / "m.json")
    assert [clip.video_id for clip in read_manifest(tmp_path / "m.json")] == ["good"]
    lost = report_of(tmp_path, "lost")
    assert len(lost) == 4
    assert sum("is a link to '/etc/passwd', not an ordinary file" in line for line in lost) == 2
    assert sum("is a device, not an ordinary file" in line for line in lost) == 2


def test_a_sparse_file_is_lost_with_the_reason(tmp_path):
    with (tmp_path / "holes.mp4").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"x")
    path = tmp_path / "x.tar"
    subprocess.run(["tar", "-C", tmp_path, "-cSf", path, "holes.mp4"], check=True)
    assert list_archive(str(path)).lost == [("holes.mp4", "is a sparse file, not an ordinary file")]


def test_links_and_encrypted_files_of_a_zip_are_lost_with_the_reason(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("good.mp4", b"x")
        link = zipfile.ZipInfo("link.mp4")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("secret.mp4", b"x")
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 8] |= 1  # encrypted, in the list of the last file
    path.write_bytes(content)
    assert list_archive(str(path)).lost == [
        ("link.mp4", "is a link, not an ordinary file"),
        ("secret.mp4", "is encrypted with a password"),
    ]


@pytest.mark.parametrize("suffix", ["tar.gz", "tar.bz2", "tar.xz"])
def test_what_unpacks_to_far_too_much_is_not_read_to_its_end(suffix, tmp_path, monkeypatch):
    monkeypatch.setattr(members, "_MOST_UNPACKED", 10 << 20)
    path = pack(
        tmp_path / f"x.{suffix}", {"a.mp4": b"x", "bomb.mp4": bytes(60 << 20), "b.mp4": b"x"}
    )
    listing = list_archive(str(path))
    assert listing.names == ["a.mp4"]
    assert "within bomb.mp4 (unpacks to over 100 times its size" in listing.damage
    assert listing.lost == [("bomb.mp4", "is damaged")]


def test_a_header_that_would_fill_the_memory_is_refused(tmp_path):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("a.mp4"))
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 1 << 33
    content = path.read_bytes()[:512] + header.tobuf(tarfile.GNU_FORMAT)
    path.write_bytes(content + bytes(1024))
    listing = list_archive(str(path))
    assert listing.names == ["a.mp4"]
    assert "8589934592 bytes" in listing.damage


@pytest.mark.parametrize("suffix", ["tar", "tar.xz"])
def test_damage_between_files_is_named_with_its_place(suffix, tmp_path):
    plain = pack(tmp_path / "x.tar", {f"{n}.mp4": b"x" * 600 for n in range(3)})
    content = bytearray(plain.read_bytes())
    content[3 * 512 + 20] ^= 1  # the second header
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(lzma.compress(content) if suffix == "tar.xz" else content)
    listing = list_archive(str(path))
    assert listing.names == ["0.mp4"]
    assert listing.damage == "is damaged (no valid header at byte 1536: bad checksum)"


def test_listing_a_zip_unpacks_nothing(tmp_path, monkeypatch):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.mp4", bytes(50 << 20))
    opened = []
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *words: opened.append(words))
    assert list_archive(str(path)).names == ["bomb.mp4"]
    assert not opened


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("content", [b"", b"<html>", b"\1" * 5000, os.urandom(5000)])
def test_what_is_no_archive_costs_itself_only(suffix, content, tmp_path):
    good = pack(tmp_path / "good.tar", {"a.mp4": b"x"})
    bad = tmp_path / f"bad.{suffix}"
    bad.write_bytes(content)
    words = ("manifest", "folder", good, bad, "--out", tmp_path / "m.json")
    printed = run(*words)
    assert len(read_manifest(tmp_path / "m.json")) == 1
    assert f"{bad}: is not a" in printed.replace(" whole", "")
    with pytest.raises(UserError, match=r"bad\.\S+ is not a"):
        run("manifest", "folder", bad, "--out", tmp_path / "n.json")


def test_a_cut_part_is_named_and_its_whole_files_are_used(tmp_path):
    files = {f"v/{number}.mp4": os.urandom(5000) for number in range(10)}
    whole = pack(tmp_path / "vgg_07.tar.gz", {"v/x.mp4": b"x"})
    part = pack(tmp_path / "vgg_08.tar.gz", files)
    part.write_bytes(part.read_bytes()[: part.stat().st_size * 6 // 10])
    printed = run("manifest", "folder", tmp_path / "*.tar.gz", "--out", tmp_path / "m.json")
    found = {clip.video_id for clip in read_manifest(tmp_path / "m.json")}
    assert {"x", "0", "1", "2", "3", "4"} <= found < {"x", *map(str, range(10))}
    assert re.search(f"{re.escape(str(part))}: was cut within v/", printed)
    assert any("is cut" in line for line in report_of(tmp_path, "lost"))
    assert str(whole) not in "".join(report_of(tmp_path, "lost"))
    summary = run(
        *("manifest", "folder", tmp_path / "*.tar.gz", "--out", tmp_path / "m.json", "--json")
    )
    assert json.loads(summary)["lost"] == 2
    (tmp_path / "m.json").unlink()
    with pytest.raises(WorkFailed, match="2 files unusable; no manifest is written"):
        run("manifest", "folder", part, whole, "--out", tmp_path / "m.json", "--strict")
    assert not (tmp_path / "m.json").exists()


def test_places_that_cannot_be_used_are_named(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"x")
    for place, message in {
        "gone.tar": "no such archive",
        "gone": "no such folder",
        "a.mp4": "is a file; give the folder",
        "*.tar": "nothing matches this pattern",
        "x.tar.zst": "archive of a kind that is not read",
        "a::b.tar": "must not contain '::'",
    }.items():
        with pytest.raises(UserError, match=message):
            run("manifest", "folder", tmp_path / place, "--out", tmp_path / "m.json")


@given(st.binary(max_size=2000), st.booleans())
def test_no_bytes_break_the_listing(content, is_packed):
    content = gzip.compress(content)[:-3] if is_packed else content
    assert archives.list_tar(io.BytesIO(content), ".mp4").damage


@given(st.data())
def test_a_damaged_tar_is_listed_to_its_last_file_or_said_to_be_damaged(data):
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("a.mp4", "ü" * 60 + ".mp4", "c.mp4"):
            member = tarfile.TarInfo(name)
            member.size = 100
            archive.addfile(member, io.BytesIO(bytes(100)))
    content = bytearray(memory.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, 5000))] = data.draw(st.integers(0, 255))
    listing = archives.list_tar(io.BytesIO(content), ".mp4")
    assert listing.damage or len(listing.names) + len(listing.lost) == 3


def test_members_behind_an_end_mark_are_listed_and_read(tmp_path):
    parts = []
    for name in ("a.mp4", "b.mp4"):
        with tarfile.open(tmp_path / "part.tar", "w") as tar:
            tar.addfile(tarfile.TarInfo(name))
        parts.append((tmp_path / "part.tar").read_bytes())
    (tmp_path / "both.tar").write_bytes(b"".join(parts))
    listing = list_archive(str(tmp_path / "both.tar"))
    assert (listing.names, listing.damage) == (["a.mp4", "b.mp4"], "")
    with (tmp_path / "both.tar").open("rb") as file:
        assert [member.name for member in read_tar(file, {"b.mp4"})] == ["b.mp4"]
    (tmp_path / "both.tar").write_bytes(parts[0] + b"junk" * 200)
    listing = list_archive(str(tmp_path / "both.tar"))
    assert listing.names == ["a.mp4"]
    assert listing.damage.startswith("is damaged (no valid header at byte 10240")
