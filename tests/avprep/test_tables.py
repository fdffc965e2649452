"""A table of clips is read alike as CSV, JSON lines and Parquet, and says where its clips are."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import fsspec
import pytest

from avprep.errors import UserError
from avprep.manifest.model import read_manifest
from tests.avprep.test_archives import pack, report_of
from tests.avprep.test_manifest_commands import run, touch

pyarrow = pytest.importorskip("pyarrow", reason="needs the extra parquet")

ROWS = [
    {
        "path": "dog/a.mp4",
        "labels": ["dog", "rain, heavy"],
        "start": 0.0,
        "end": 10.0,
        "split": "x",
    },
    {"path": "dog/a.mp4", "labels": ["rain, heavy"], "start": 10.0, "end": 20.5, "split": "x"},
    {"path": "b.mkv", "labels": ["cat"], "start": None, "end": None, "split": "y"},
    {"path": "gone.mp4", "labels": ["cat"], "start": None, "end": None, "split": "y"},
]


def write_table(path: Path, rows: list[dict]) -> Path:
    """A table in the format of its suffix."""
    if path.suffix == ".parquet":
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix in (".jsonl", ".gz"):
        text = "\n".join(json.dumps(row) for row in rows)
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    else:
        lines = [",".join(rows[0])]
        for row in rows:
            cells = [
                "".join(f"{one};" for one in v) if isinstance(v, list) else v for v in row.values()
            ]
            lines.append(",".join(f'"{cell}"' if cell is not None else "" for cell in cells))
        path.write_text("\n".join(lines))
    return path


def facts(path: Path) -> list[tuple]:
    clips = read_manifest(path)
    return [(c.video_id, c.labels, c.video, c.start, c.end, c.split) for c in clips]


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.jsonl.gz", "t.parquet"])
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "with places"])
def test_every_format_gives_the_same_clips(name, alone, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path / "d", "dog/a.mp4", "b.mkv", "spare.mp4")
    table = write_table(tmp_path / "d" / name, ROWS)
    table = table.relative_to(tmp_path)
    words = (table,) if alone else ("d", "--csv", table)
    printed = run("manifest", "folder", *words, "--out", "m.json")
    assert facts(Path("m.json")) == [
        ("a_0_10", ("dog", "rain_ heavy"), "d/dog/a.mp4", 0.0, 10.0, "x"),
        ("a_10_20.5", ("rain_ heavy",), "d/dog/a.mp4", 10.0, 20.5, "x"),
        ("b", ("cat",), "d/b.mkv", None, None, "y"),
    ]
    assert "1 missing clip" in printed
    assert len(report_of(tmp_path, "extra")) == (0 if alone else 1)  # alone, nothing is scanned
    run("manifest", "folder", *words, "--split", "y", "--out", "y.json")
    assert [fact[0] for fact in facts(Path("y.json"))] == ["b"]


def test_rows_may_name_what_is_in_archives_and_stores(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d").mkdir()
    pack(tmp_path / "d" / "x.tar", {"v/a.mp4": b"1"})
    pack(tmp_path / "y.zip", {"v/a.mp4": b"1"})
    fsspec.filesystem("memory").pipe_file(f"/{tmp_path.name}/b.mp4", b"1")
    names = [
        "tar://v/a.mp4::x.tar",
        f"zip://v/a.mp4::{tmp_path}/y.zip",
        f"memory://{tmp_path.name}/b.mp4",
        "https://example.com/v/c.mp4",
    ]
    gone = [
        "tar://v/gone.mp4::x.tar",
        "tar://v/a.mp4::gone.tar",
        f"memory://{tmp_path.name}/no.mp4",
    ]
    rows = [{"url": name, "id": str(number)} for number, name in enumerate([*names, *gone])]
    table = write_table(tmp_path / "d" / "t.jsonl", rows)
    printed = run("manifest", "folder", table, "--out", "m.json")
    clips = read_manifest(Path("m.json"))
    assert [clip.video for clip in clips] == [f"tar://v/a.mp4::{tmp_path}/d/x.tar", *names[1:]]
    assert [clip.video_id for clip in clips] == ["x__v__a", "y__v__a", "b", "c"]
    assert "3 missing clips" in printed
    assert "1 clip on web servers" in printed


def test_the_name_of_a_file_in_an_archive_may_be_spelled_in_two_ways(tmp_path):
    pack(tmp_path / "x.tar", {"./v/a.mp4": b"1", "v/b.mp4": b"1"})
    names = ["tar://v/a.mp4::x.tar", "tar://./v/b.mp4::x.tar"]
    table = write_table(tmp_path / "t.jsonl", [{"path": name} for name in names])
    run("manifest", "folder", table, "--out", tmp_path / "m.json")
    assert [clip.video_id for clip in read_manifest(tmp_path / "m.json")] == ["a", "b"]
    write_table(tmp_path / "t.jsonl", [{"path": "tar://v/c.mp4::x.tar.zst"}])
    with pytest.raises(UserError, match=r"x\.tar\.zst: is an archive of a kind that is not read"):
        run("manifest", "folder", table, "--out", tmp_path / "m.json")


def test_a_table_names_files_of_the_archives_that_are_given(tmp_path):
    pack(tmp_path / "p_0.tar", {"v/a.mp4": b"1", "v/c.mp4": b"1"})
    pack(tmp_path / "p_1.tar.gz", {"v/b.mp4": b"2"})
    table = write_table(tmp_path / "t.csv", [{"path": p, "label": "x"} for p in ("a", "v/b.mp4")])
    words = (tmp_path / "p_*", "--csv", table, "--out", tmp_path / "m.json")
    assert "1 extra file" in run("manifest", "folder", *words)
    assert [clip.video_id for clip in read_manifest(tmp_path / "m.json")] == ["a", "b"]


def test_videos_in_a_table_are_unpacked_beside_the_manifest_once(demo_clip, tmp_path):
    video = demo_clip.read_bytes()
    for name, cells in {
        "plain": [video, None, video[:5000]],
        "nested": [{"bytes": video, "path": "a.mp4"}, None, {"bytes": video[:5000], "path": "b"}],
    }.items():
        rows = [{"video": cell, "id": str(n), "label": f"c{n}"} for n, cell in enumerate(cells)]
        table = write_table(tmp_path / f"{name}.parquet", rows)
        printed = run("manifest", "folder", table, "--out", tmp_path / "m.json")
        archive = tmp_path / "m.videos.tar"
        clips = read_manifest(tmp_path / "m.json")
        assert [(clip.video_id, clip.labels) for clip in clips] == [
            ("00000001", ("c0",)),
            ("00000003", ("c2",)),
        ]
        assert f"the videos in its column video were written to {archive}" in printed
        assert "1 missing clip" in printed
        for clip, content in zip(clips, (video, video[:5000]), strict=True):
            with fsspec.open(clip.video) as file:
                assert file.read() == content
        (tmp_path / "m.classes.csv").unlink()


def test_a_table_that_cannot_be_used_is_one_clear_line(tmp_path):
    touch(tmp_path, "a.mp4")
    out = ("--out", tmp_path / "m.json")
    bytes_only = write_table(tmp_path / "b.parquet", [{"mp4": b"\0", "label": "x"}])
    with pytest.raises(UserError, match=r"its column 'mp4' holds the videos themselves"):
        run("manifest", "folder", tmp_path, "--csv", bytes_only, *out)
    both = write_table(tmp_path / "c.parquet", [{"path": "a.mp4", "md5": b"\0"}])
    run("manifest", "folder", both, *out)
    for name in ("t.csv", "t.jsonl", "t.parquet"):
        table = write_table(tmp_path / name, [{"colour": "red"}])
        with pytest.raises(UserError, match=r"at least path, found 'colour'"):
            run("manifest", "folder", table, *out)
        with pytest.raises(UserError, match=r"at least path and label, found 'colour'"):
            run("manifest", "folder", tmp_path, "--csv", table, *out)
        with pytest.raises(UserError, match=r"give a table alone"):
            run("manifest", "folder", table, tmp_path, *out)
        table.write_bytes(b"")
        with pytest.raises(UserError, match=rf"{name}: "):
            run("manifest", "folder", table, *out)
        table.unlink()
        with pytest.raises(UserError, match=rf"{name}: cannot be read"):
            run("manifest", "folder", table, *out)
    (tmp_path / "t.jsonl").write_text('{"path": "a.mp4"}\n[1]\n')
    with pytest.raises(UserError, match=r"t.jsonl: line 2: expected an object"):
        run("manifest", "folder", tmp_path / "t.jsonl", *out)
    with pytest.raises(UserError, match=r"s3://b/t.csv: a table must be a file on this machine"):
        run("manifest", "folder", "s3://b/t.csv", *out)
