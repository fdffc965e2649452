"""Archives and object stores are matched and reported as folders are."""

from __future__ import annotations

import contextlib
import csv
import os
import re
import tempfile
from pathlib import Path

import fsspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avprep import storage
from avprep.clips import Clip, VideoFile, discover_clips, expanded, ids_of, path_below
from avprep.errors import UserError, WorkFailed
from avprep.labels import read_label_csv
from avprep.manifest.model import read_manifest, write_manifest
from avprep.manifest.sources.folder import match_folder
from tests.avprep.test_archives import pack
from tests.avprep.test_manifest_commands import run, touch
from tests.faults.test_stores import server  # noqa: F401 (a fixture)
from tests.web_server import WebServer

FILES = [
    *("dog/a.mp4", "dog/deep/b.mkv", "cat/a.mp4", "cat/a.webm", "loose.mp4", "cat/notes.txt"),
    *(".Trash-1000/x.mp4", "dog/._a.mp4", "__MACOSX/dog/a.mp4", "cat/c.mp4.part", "cat/T.f137.mp4"),
    *("cat/T.mp4", "cat/u.mp4", "cat/u.mp4.aria2", "dog/ü [x].MP4"),
]


def packed(folder: Path, path: Path, top: str = "") -> Path:
    """An archive of a folder, as `tar -C folder . ` makes one, or with a folder around it."""
    names = sorted(p for p in folder.rglob("*") if p.is_file())
    inside = [f"{top or '.'}/{name.relative_to(folder)}" for name in names]
    if path.suffix == ".zip":
        inside = [name.removeprefix("./") for name in inside]
    return pack(path, {name: p.read_bytes() for name, p in zip(inside, names, strict=True)})


def facts_of(clips: list[Clip]) -> list[tuple]:
    return [(clip.video_id, clip.labels, clip.start, clip.end, clip.split) for clip in clips]


def report(path: Path, root: str) -> list[tuple[str, ...]]:
    """The lines of a report, with paths below the root."""
    with path.open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        video = row["path"].partition("::")[0].removeprefix(root).lstrip("/")
        row["path"] = video.partition("://")[2].removeprefix("./") if "://" in video else video
        row["detail"] = ""
    return [tuple(row.values()) for row in rows]


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.tgz", "x.zip", "memory", "s3"])
@pytest.mark.parametrize("listed", [False, True], ids=["folders", "csv"])
def test_what_holds_a_folder_gives_what_the_folder_gives(name, listed, tmp_path, request):
    folder = tmp_path / "videos"
    touch(folder, *FILES)
    words: tuple = ()
    if listed:
        table = tmp_path / "clips.csv"
        table.write_text(
            "path,label,start,end\ndog/a.mp4,dog,0,10\ndog/a.mp4,dog,10,20\ndog/deep/b,dog,,\n"
            "cat/u.mp4,cat,,\ngone.mp4,cat,,\nT,cat,,\n"
        )
        words = ("--csv", table)
    if name in ("memory", "s3"):
        if name == "s3":
            request.getfixturevalue("server")
        place = f"{name}://bucket/{tmp_path.name}/videos"
        filesystem, key = fsspec.core.url_to_fs(place)
        for path in folder.rglob("*"):
            if path.is_file():
                filesystem.pipe_file(f"{key}/{path.relative_to(folder)}", path.read_bytes())
    else:
        place = str(packed(folder, tmp_path / name))
    printed = [
        run("manifest", "folder", root, *words, "--out", tmp_path / f"{number}.json")
        for number, root in enumerate((folder, place))
    ]
    clips = [read_manifest(tmp_path / f"{number}.json") for number in (0, 1)]
    assert facts_of(clips[1]) == facts_of(clips[0])
    assert len(clips[1]) == (5 if listed else 7)
    first, second = (tmp_path / f"{number}.report.csv" for number in (0, 1))
    assert report(second, place) == report(first, str(folder))
    assert read_label_csv(tmp_path / "0.classes.csv") == read_label_csv(tmp_path / "1.classes.csv")
    for text in printed:
        assert "7 files are passed over" in text
    for clip in clips[1]:
        original = (folder / clip.video_id.replace("__", "/")).with_suffix("")
        if name != "x.tgz" and not listed:  # which fsspec takes for a plain tar
            with fsspec.open(clip.video) as file:
                assert Path(os.fsdecode(file.read())).name.startswith(original.name[:1])


@pytest.mark.parametrize("split", ["train", "test"])
def test_splits_in_an_archive_are_those_of_a_folder(split, tmp_path):
    folder = tmp_path / "videos"
    touch(folder, "train/dog/a.mp4", "train/cat/b.mp4", "test/dog/c.mp4", "test/cat/d.mp4")
    archive = packed(folder, tmp_path / "x.tar")
    facts = []
    for root in (folder, archive):
        run("manifest", "folder", root, "--split", split, "--out", tmp_path / "m.json")
        facts.append(facts_of(read_manifest(tmp_path / "m.json")))
        (tmp_path / "m.classes.csv").unlink()
    assert facts[0] == facts[1]
    assert len(facts[0]) == 2


def test_a_folder_around_everything_in_an_archive_is_no_class(tmp_path):
    touch(tmp_path / "v", "dog/a.mp4", "cat/b.mp4")
    archive = packed(tmp_path / "v", tmp_path / "x.tar.gz", "set/videos")
    printed = run("manifest", "folder", archive, "--out", tmp_path / "m.json")
    assert "everything is in set/videos/, which is not taken for a class" in printed
    assert [clip.labels for clip in read_manifest(tmp_path / "m.json")] == [("cat",), ("dog",)]


def test_a_class_that_is_all_there_is_stays_a_class(tmp_path):
    archive = pack(tmp_path / "x.tar", {"dog/a.mp4": b"x", "dog/b.mp4": b"x"})
    run("manifest", "folder", archive, "--out", tmp_path / "m.json")
    assert {clip.labels for clip in read_manifest(tmp_path / "m.json")} == {("dog",)}


def test_parts_are_one_set_and_no_file_is_lost_to_another(tmp_path):
    pack(tmp_path / "p_00.tar", {"dog/a.mp4": b"1", "dog/b.mp4": b"2"})
    pack(tmp_path / "p_01.tar.gz", {"dog/a.mp4": b"3", "cat/c.mp4": b"4"})
    pack(tmp_path / "p_02.zip", {"cat/b.mp4": b"5"})
    run("manifest", "folder", tmp_path / "p_*", "--out", tmp_path / "m.json")
    clips = read_manifest(tmp_path / "m.json")
    assert {clip.video_id: clip.labels[0] for clip in clips} == {
        "p_00__dog__a": "dog",
        "p_01__dog__a": "dog",
        "dog__b": "dog",
        "cat__b": "cat",
        "c": "cat",
    }
    assert len({clip.video for clip in clips}) == 5


def test_a_place_given_twice_counts_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pack(tmp_path / "a.tar", {"dog/a.mp4": b"1"})
    touch(tmp_path, "v/sub/b.mp4")
    run("manifest", "folder", "a.tar", "./a.tar", "*.tar", "v", "v/sub", "--out", "m.json")
    assert {clip.video for clip in read_manifest(Path("m.json"))} == {
        "tar://dog/a.mp4::a.tar",
        "v/sub/b.mp4",
    }


@given(
    st.lists(
        st.tuples(st.sampled_from(["x/a.tar", "y/a.tar", "b.zip"]), st.text("a_/=.", min_size=1)),
        max_size=8,
        unique=True,
    )
)
def test_ids_of_files_in_archives_are_distinct(members):
    files = [VideoFile(name, f"tar://{name}::{archive}") for archive, name in members]
    assert len(set(ids_of(files))) == len(files)


def test_vggsound_and_audioset_take_archives_of_any_kind(tmp_path):
    (tmp_path / "v.csv").write_text("dddddddddd1,30,rapping,train\ndddddddddd2,40,rapping,test\n")
    (tmp_path / "a.csv").write_text("dddddddddd1,30,40,/m/a\ndddddddddd2,40,50,/m/a\n")
    (tmp_path / "l.csv").write_text("index,mid,display_name\n0,/m/a,A\n")
    pack(tmp_path / "parts_0.tar.gz", {"s/video/dddddddddd1_000030.mp4": b"x", "s/o.mp4": b"x"})
    pack(tmp_path / "parts_1.zip", {"dddddddddd1_30.mkv": b"x", "dddddddddd2_40.mp4": b"x"})
    found = []
    for words in (
        ("vggsound", "--csv", tmp_path / "v.csv"),
        ("audioset", "--segments", tmp_path / "a.csv", "--labels", tmp_path / "l.csv"),
    ):
        out = ("--videos", tmp_path / "parts_*", "--out", tmp_path / f"{words[0]}.json")
        printed = run("manifest", *words, *out)
        assert "1 duplicate file, 1 extra file" in printed
        found.append([clip.video for clip in read_manifest(out[3])])
    assert found[0] == found[1]
    assert found[0] == [
        f"tar://s/video/dddddddddd1_000030.mp4::{tmp_path}/parts_0.tar.gz",
        f"zip://dddddddddd2_40.mp4::{tmp_path}/parts_1.zip",
    ]


def test_relative_places_stay_relative_and_move_as_paths_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "parts").mkdir()
    pack(tmp_path / "parts" / "x.tar", {"./v/a.mp4": b"1"})
    run("manifest", "folder", "parts/x.tar", "--out", "m.json")
    (clip,) = read_manifest(Path("m.json"))
    assert clip.video == "tar://./v/a.mp4::parts/x.tar"
    for root, moved in {
        "parts=/data/p": "tar://./v/a.mp4::/data/p/x.tar",
        "=/data": "tar://./v/a.mp4::/data/parts/x.tar",
        "parts=s3://bucket": "tar://./v/a.mp4::s3://bucket/x.tar",
        "parts/x.tar=y.tar": "tar://./v/a.mp4::y.tar",
    }.items():
        run("manifest", "convert", "m.json", "n.json", "--root", root)
        assert read_manifest(Path("n.json"))[0].video == moved
    write_manifest(Path("s.json"), [Clip("a", video="s3://bucket/v/a.mp4")])
    run("manifest", "convert", "s.json", "n.json", "--root", "s3://bucket=/data")
    assert read_manifest(Path("n.json"))[0].video == "/data/v/a.mp4"
    with pytest.raises(UserError, match="no path is below"):
        run("manifest", "convert", "s.json", "n.json", "--root", "=/data")


def test_check_looks_into_archives_and_stores(tmp_path):
    archive = pack(tmp_path / "x.tar", {"a.mp4": b"1"})
    fsspec.filesystem("memory").pipe_file(f"/{tmp_path.name}/a.mp4", b"1")
    places = [f"tar://{{}}::{archive}", f"memory://{tmp_path.name}/{{}}"]
    clips = [
        Clip(f"{name}{number}", video=place.format(f"{name}.mp4"))
        for number, place in enumerate([*places, f"tar://{{}}::{tmp_path}/gone.tar"])
        for name in "ab"
    ]
    write_manifest(tmp_path / "m.json", clips)
    words = ("--report", tmp_path / "problems.csv")
    run("manifest", "check", tmp_path / "m.json", *words)
    lines = (tmp_path / "problems.csv").read_text().splitlines()
    assert [line.split(",")[2] for line in lines[1:]] == ["b0", "b1", "a2", "b2"]


def test_archives_in_a_store_are_listed_there(server, tmp_path):  # noqa: F811
    filesystem = fsspec.filesystem("s3", use_listings_cache=False)
    for name in ("p_0.tar", "p_1.tar.gz", "p_2.zip"):
        path = pack(tmp_path / name, {f"dog/{name[:3]}.mp4": os.urandom(300_000)})
        filesystem.put_file(str(path), f"bucket/{tmp_path.name}/{name}")
    place = f"s3://bucket/{tmp_path.name}"
    run("manifest", "folder", f"{place}/p_*", "--out", tmp_path / "m.json")
    assert [clip.video for clip in read_manifest(tmp_path / "m.json")] == [
        f"tar://dog/p_0.mp4::{place}/p_0.tar",
        f"tar://dog/p_1.mp4::{place}/p_1.tar.gz",
        f"zip://dog/p_2.mp4::{place}/p_2.zip",
    ]
    for gone, message in {
        f"{place}/gone.tar": "no such archive",
        f"{place}/gone": "has no videos",
        "s3://no-such-bucket/v": "has no videos",
        f"{place}/gone*": "nothing matches",
    }.items():
        with pytest.raises(UserError, match=message):
            run("manifest", "folder", gone, "--out", tmp_path / "n.json")


def test_only_the_headers_of_a_tar_in_a_store_are_fetched(server, tmp_path, monkeypatch):  # noqa: F811
    import s3fs

    path = pack(tmp_path / "x.tar", {f"{n}.mp4": os.urandom(2_000_000) for n in range(5)})
    fsspec.filesystem("s3").put_file(str(path), f"bucket/{tmp_path.name}.tar")
    caches, opened = [], s3fs.S3FileSystem.open

    def remembered(self, *words, **named):
        file = opened(self, *words, **named)
        caches.append(file.cache)
        return file

    monkeypatch.setattr(s3fs.S3FileSystem, "open", remembered)
    assert len(discover_clips(f"s3://bucket/{tmp_path.name}.tar")) == 5
    (cache,) = caches
    assert 0 < cache.total_requested_bytes < path.stat().st_size // 5


def test_access_that_is_refused_is_one_clear_line(tmp_path, monkeypatch):
    import s3fs

    def refuse(*words, **named):
        raise PermissionError("Forbidden")

    monkeypatch.setattr(s3fs.S3FileSystem, "find", refuse)
    monkeypatch.setattr(s3fs.S3FileSystem, "open", refuse)
    for place in ("s3://bucket/v", "s3://bucket/x.tar"):
        with pytest.raises(UserError, match=f"{place}: access is refused"):
            run("manifest", "folder", place, "--out", tmp_path / "m.json")


def test_a_folder_of_archives_says_what_to_give(tmp_path):
    pack(tmp_path / "p_0.tar.gz", {"a.mp4": b"x"})
    with pytest.raises(UserError, match=rf"It has archives, such as {tmp_path}/p_0.tar.gz; give"):
        discover_clips(tmp_path)


def test_an_archive_without_videos_is_listed_once(tmp_path, monkeypatch):
    path = pack(tmp_path / "x.tar.gz", {"dog/a.wav": b"x", "cat/b.wav": b"x", "cat/b.txt": b"x"})
    opened, list_archive = [], storage.list_archive
    monkeypatch.setattr(
        storage, "list_archive", lambda *words: opened.append(words) or list_archive(*words)
    )
    matched = match_folder(path)
    assert [clip.labels for clip in matched.clips()] == [("cat",), ("dog",)]
    assert len(opened) == 1


def test_a_folder_whose_name_is_a_pattern_is_taken_as_it_is(tmp_path):
    touch(tmp_path, "v[1]/a.mp4", "v1/b.mp4")
    assert [clip.video_id for clip in discover_clips(tmp_path / "v[1]")] == ["a"]
    assert expanded(f"file://{tmp_path}/v1") == [str(tmp_path / "v1")]


PARTS = st.sampled_from(["dog", "cat", "train", "test", "deep", ".git", "__MACOSX", "a.b", "ü"])
NAMES = st.builds(
    lambda stem, suffix: stem + suffix,
    st.sampled_from(["a", "b", "._a", "T.f137", "T", "a.part", "x_30_40"]),
    st.sampled_from([".mp4", ".mkv", ".MP4", ".mp4.part", ".mp4.aria2", ".txt", ""]),
)
TREES = st.lists(st.tuples(st.lists(PARTS, max_size=3), NAMES), min_size=1, max_size=12)


@given(TREES, st.sampled_from(["x.tar", "x.tar.gz", "x.zip"]))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_tree_of_files_gives_the_same_in_an_archive(tmp_path, tree, archive):
    with tempfile.TemporaryDirectory(dir=tmp_path) as name:
        folder = Path(name, "videos")
        for parts, file in tree:
            with contextlib.suppress(OSError):  # a folder where there is a file already
                touch(folder, "/".join([*parts, file]))
        facts = []
        for place in (folder, packed(folder, Path(name, archive))):
            try:
                matched = match_folder(place)
            except UserError as error:
                facts.append(re.findall("has no videos|look like splits", str(error)))
                continue
            if any("is not taken for a class" in remark for remark in matched.remarks):
                return  # the one thing that is told of archives alone
            skipped = sorted(path_below(path, str(place)) for path in matched.scan.passed_over)
            facts.append([facts_of(list(matched.clips())), matched.data_set.labels, skipped])
        assert facts[0] == facts[1]


def test_folders_and_archives_may_be_mixed(tmp_path):
    touch(tmp_path / "v", "dog/a.mp4")
    archive = pack(tmp_path / "x.tar", {"cat/b.mp4": b"x"})
    matched = match_folder([tmp_path / "v", archive])
    assert [clip.labels for clip in matched.clips()] == [("cat",), ("dog",)]


@pytest.mark.parametrize("has_ranges", [True, False])
@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "zip"])
def test_an_archive_on_a_web_server_is_listed_there(suffix, has_ranges, tmp_path):
    path = pack(tmp_path / f"x.{suffix}", {f"{n}.mp4": os.urandom(400_000) for n in range(5)})
    with WebServer({f"/{path.name}": path.read_bytes()}, has_ranges) as web:
        place = f"{web.url}/{path.name}"
        if suffix == "zip" and not has_ranges:
            with pytest.raises(UserError, match=r"does not support range requests"):
                discover_clips(place)
            return
        scheme = "zip" if suffix == "zip" else "tar"
        clips = discover_clips(place)
        assert [clip.video for clip in clips] == [f"{scheme}://{n}.mp4::{place}" for n in range(5)]


def test_what_a_web_server_refuses_is_one_clear_line(tmp_path):
    path = pack(tmp_path / "x.tar", {"a.mp4": b"x"})
    with WebServer({"/x.tar": path.read_bytes()}) as web:
        for status, error, message in (
            (403, UserError, "access is refused"),
            (404, UserError, "no such archive"),
            (503, WorkFailed, "cannot be reached"),
        ):
            web.statuses["/x.tar"] = status
            with pytest.raises(error, match=rf"{web.url}/x.tar: {message}") as caught:
                discover_clips(f"{web.url}/x.tar")
            assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(WorkFailed, match=rf"{web.url}/x.tar: cannot be reached"):
        discover_clips(f"{web.url}/x.tar")


@pytest.mark.parametrize("place", ["nosuch://bucket/v", "nosuch://bucket/x.tar", "nosuch://b/*"])
def test_an_unknown_kind_of_url_is_named(place):
    with pytest.raises(UserError, match="nosuch:// is not a kind of URL that can be read"):
        discover_clips(place)
