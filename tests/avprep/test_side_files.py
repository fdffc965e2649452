"""Labels from the files beside videos, in tars as video2dataset writes them, and in folders."""

from __future__ import annotations

import json

import fsspec
import pytest

from avprep.errors import UserError
from avprep.labels import label_set_from_names, read_label_csv, write_label_csv
from avprep.manifest.model import read_manifest
from tests.avprep.test_archives import pack
from tests.avprep.test_manifest_commands import run

SAMPLES = {
    "000000001": ("A caption, long.", {"category": "dog", "tags": ["pet", "loud, very"]}, "2"),
    "000000000": ("Another", {"category": "cat", "tags": []}, "10"),
    "000000002": ("A third", {"caption": "no category"}, "0"),
}


def files_of(samples) -> dict[str, bytes]:
    files = {}
    for key, (text, entry, number) in samples.items():
        files[f"{key}.mp4"] = key.encode()
        files[f"{key}.txt"] = text.encode()
        files[f"{key}.json"] = json.dumps({"key": key, "status": "success", **entry}).encode()
        files[f"{key}.cls"] = number.encode()
    return files


def place_of(kind: str, folder) -> str:
    files = files_of(SAMPLES)
    if kind == "memory":
        for name, content in files.items():
            fsspec.filesystem("memory").pipe_file(f"/{folder.name}/{name}", content)
        return f"memory://{folder.name}"
    if kind == "folder":
        (folder / "v").mkdir()
        for name, content in files.items():
            (folder / "v" / name).write_bytes(content)
        return str(folder / "v")
    return str(pack(folder / f"00000.{kind}", files))


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip", "folder", "memory"])
def test_labels_are_those_of_the_file_that_is_asked_for(kind, tmp_path):
    place = place_of(kind, tmp_path)
    for source, labels in {
        None: [(), (), ()],
        "json:category": [("cat",), ("dog",), ()],
        "json:tags": [(), ("pet", "loud_ very"), ()],
        "txt": [("Another",), ("A caption_ long.",), ("A third",)],
        "cls": [("10",), ("2",), ("0",)],
    }.items():
        words = () if source is None else ("--label-from", source)
        run("manifest", "folder", place, *words, "--out", tmp_path / f"{source}.json")
        clips = read_manifest(tmp_path / f"{source}.json")
        assert [clip.video_id for clip in clips] == sorted(SAMPLES)
        assert [clip.labels for clip in clips] == labels
    captions = (tmp_path / "None.json").read_text() + (tmp_path / "json:category.json").read_text()
    assert "caption" not in captions


def test_numbers_are_the_numbers_of_the_classes(tmp_path):
    place = place_of("tar", tmp_path)
    words = ("manifest", "folder", place, "--label-from", "cls")
    run(*words, "--out", tmp_path / "m.json")
    labels = read_label_csv(tmp_path / "m.classes.csv")
    clips = read_manifest(tmp_path / "m.json")
    assert [labels.indices_of(clip.labels) for clip in clips] == [(10,), (2,), (0,)]
    known = label_set_from_names(f"class {chr(97 + n)}" for n in range(11))
    write_label_csv(tmp_path / "k.csv", known)
    run(*words, "--labels", tmp_path / "k.csv", "--out", tmp_path / "n.json")
    clips = read_manifest(tmp_path / "n.json")
    assert [clip.labels for clip in clips] == [("class k",), ("class c",), ("class a",)]
    write_label_csv(tmp_path / "few.csv", label_set_from_names("abc"))
    with pytest.raises(UserError, match=r"few.csv: has no class '10'"):
        run(*words, "--labels", tmp_path / "few.csv", "--out", tmp_path / "o.json")


def test_what_cannot_be_used_is_one_clear_line(tmp_path):
    place = place_of("tar", tmp_path)
    out = ("--out", tmp_path / "m.json")
    with pytest.raises(UserError, match=r"json:colour: no .* their fields are .*category.*tags"):
        run("manifest", "folder", place, "--label-from", "json:colour", *out)
    for wrong in ("json", "xml", "cls:a", "json:"):
        with pytest.raises(UserError, match=r"give cls, txt or json:FIELD"):
            run("manifest", "folder", place, "--label-from", wrong, *out)
    bare = pack(tmp_path / "bare.tar", {"a.mp4": b"x"})
    with pytest.raises(UserError, match=r"cls: no video has such a label.* tar://a.cls::"):
        run("manifest", "folder", bare, "--label-from", "cls", *out)
    (tmp_path / "t.csv").write_text("path,label\n")
    with pytest.raises(UserError, match=r"--label-from: .*t.csv says what the classes are"):
        run("manifest", "folder", tmp_path / "t.csv", "--label-from", "cls", *out)


def test_a_damaged_file_costs_one_label_and_is_named(tmp_path):
    files = files_of(SAMPLES) | {"000000001.json": b"{", "000000002.json": b'["a"]'}
    place = pack(tmp_path / "x.tar", files)
    words = ("--label-from", "json:category", "--out", tmp_path / "m.json")
    printed = run("manifest", "folder", place, *words)
    assert [clip.labels for clip in read_manifest(tmp_path / "m.json")] == [("cat",), (), ()]
    assert "2 files with labels cannot be read: tar://000000001.json::" in printed
