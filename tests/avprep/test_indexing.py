"""Tars that other programs wrote are trained from where they lie."""

from __future__ import annotations

import io
import json
import re
import shlex
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import webdataset as wds
from click.testing import CliRunner

import avprep
from avprep.audio import encode_flac, encode_wav
from avprep.cli import group
from avprep.errors import UserError
from avprep.images import encode_jpeg
from avprep.options import IndexOptions
from avprep.shards.format import read_dataset, read_index, stored_members
from avprep.shards.verify import verify

LABELS = IndexOptions(labels="json:labels")


def sample(number: int, frames: int = 3, size: int = 32) -> dict[str, bytes]:
    """The members of a sample, by suffix; no two are the same."""
    chance = np.random.default_rng(number)
    pcm = chance.integers(-9000, 9000, 8000 + number, dtype=np.int16)
    pictures = chance.integers(0, 255, (frames, size, size, 3), dtype=np.uint8)
    facts = {"video_id": f"clip.{number}", "labels": ["cat", "dog"][: 1 + number % 2]}
    return {
        "json": json.dumps(facts).encode(),
        "flac": encode_flac(pcm),
        **{f"{place}.jpg": encode_jpeg(picture, 75) for place, picture in enumerate(pictures)},
    }


def write_tar(path: Path, members: list[tuple[str, bytes]], kind: int = tarfile.USTAR_FORMAT):
    with tarfile.open(path, "w", format=kind) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def named(key: str, members: dict[str, bytes]) -> list[tuple[str, bytes]]:
    return [(f"{key}.{suffix}", data) for suffix, data in members.items()]


def read_back(folder: Path) -> dict[str, dict[str, bytes]]:
    """Every sample's members, by the byte ranges of the index."""
    found = {}
    for shard in read_dataset(folder).shards:
        data = (folder / shard.name).read_bytes()
        for entry in read_index(folder, shard.name).samples:
            piece = data[entry.offset : entry.offset + entry.size]
            members = stored_members(entry, piece, entry.offset, "flac")
            found[entry.video_id] = {name: bytes(view) for name, view in members.items()}
    return found


def test_tars_of_shardwriter_are_indexed_where_they_lie(tmp_path):
    expected = {f"{number:06d}": sample(number) for number in range(7)}
    with wds.ShardWriter(f"{tmp_path}/theirs-%03d.tar", maxcount=3, verbose=0) as writer:
        for key, members in expected.items():
            writer.write({"__key__": key, **members})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    found = avprep.index_tars(sorted(tmp_path.glob("*.tar")), LABELS)
    assert (found.shards, found.samples, found.classes) == (3, 7, 2)
    assert read_back(tmp_path) == expected
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    info = read_dataset(tmp_path)
    assert info.class_counts == (7, 3)
    assert (info.options["frames"], info.options["frame_size"]) == (3, 32)
    assert info.seconds == pytest.approx(
        sum(8000 + number for number in range(7)) / 16000, abs=2e-3
    )
    assert not verify(str(tmp_path), avprep.VerifyOptions(deep=True)).damaged


@pytest.mark.parametrize(
    "kind",
    [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT],
    ids=["ustar", "gnu", "pax"],
)
@pytest.mark.parametrize("folder", ["", "a/b/", "x" * 90 + "/" + "é" * 45 + "/"], ids=len)
def test_members_in_folders_with_long_names_are_found(tmp_path, kind, folder):
    expected = {f"{folder}{number}": sample(number) for number in range(3)}
    members = [pair for key, one in expected.items() for pair in named(key, one)]
    write_tar(tmp_path / "t.tar", members, kind)
    avprep.index_tars([tmp_path])
    assert read_back(tmp_path) == expected


def test_the_tars_of_tar_itself_and_another_order_of_members_are_read(tmp_path):
    (tmp_path / "files").mkdir()
    expected = {str(number): sample(number) for number in range(3)}
    names = []
    for key, members in expected.items():
        for name, data in reversed(named(key, members)):
            (tmp_path / "files" / name).write_bytes(data)
            names.append(name)
    command = ["tar", "-C", tmp_path / "files", "-cf", tmp_path / "t.tar", *names]
    subprocess.run(command, check=True)
    avprep.index_tars([tmp_path / "t.tar", str(tmp_path / "*.tar")])  # one tar, named twice
    assert read_back(tmp_path) == expected


def test_a_folder_elsewhere_gets_links(tmp_path):
    (tmp_path / "theirs").mkdir()
    write_tar(tmp_path / "theirs" / "t.tar", named("k", sample(1)))
    for _ in range(2):  # again, too
        found = avprep.index_tars([tmp_path / "theirs"], IndexOptions(out=tmp_path / "ours"))
    assert (found.out, found.samples) == (str(tmp_path / "ours"), 1)
    assert (tmp_path / "ours" / "t.tar").is_symlink()
    assert [path.name for path in (tmp_path / "theirs").iterdir()] == ["t.tar"]
    assert read_back(tmp_path / "ours") == {"k": sample(1)}


def test_ids_and_classes_come_from_where_they_are_said_to_be(tmp_path):
    write_tar(tmp_path / "t.tar", [*named("k", sample(1)), ("k.cls", b"1\n")])
    (tmp_path / "c.csv").write_text("index,mid,display_name\n0,/m/cat,Cat\n1,/m/dog,Dog\n")
    by_id = IndexOptions(id="json:video_id", labels="cls", classes=tmp_path / "c.csv")
    avprep.index_tars([tmp_path], by_id)
    (entry,) = read_index(tmp_path, "t.tar").samples
    assert (entry.video_id, entry.labels) == ("clip.1", (1,))
    by_name = IndexOptions(labels="json:labels", classes=tmp_path / "c.csv")
    avprep.index_tars([tmp_path], by_name)
    assert read_index(tmp_path, "t.tar").samples[0].labels == (0, 1)
    with pytest.raises(UserError, match=r"these are numbers of classes, such as 1.*--classes CSV"):
        avprep.index_tars([tmp_path], IndexOptions(labels="cls"))


def test_one_modality_and_other_suffixes(tmp_path):
    one = sample(1)
    pcm = np.arange(8000, dtype=np.int16)
    members = [("k.audio.wav", encode_wav(pcm)), ("k.jpg", one["0.jpg"])]
    write_tar(tmp_path / "t.tar", members)
    avprep.index_tars([tmp_path], IndexOptions(audio="audio.wav", frame="jpg"))
    info = read_dataset(tmp_path)
    assert (info.options["audio"], info.options["frames"], info.lacking()) == ("wav", 1, {})
    assert read_index(tmp_path, "t.tar").samples[0].num_samples == 8000
    avprep.index_tars([tmp_path], IndexOptions(audio="audio.wav", frame=""))
    assert read_dataset(tmp_path).lacking() == {"image": 1}
    avprep.index_tars([tmp_path], IndexOptions(audio="", frame="jpg"))
    assert read_dataset(tmp_path).lacking() == {"audio": 1}


def without(members: dict[str, bytes], *suffixes: str) -> dict[str, bytes]:
    return {suffix: data for suffix, data in members.items() if suffix not in suffixes}


def only(members: dict[str, bytes], *suffixes: str) -> dict[str, bytes]:
    return {suffix: members[suffix] for suffix in suffixes}


BAD = {
    "half": (
        named("b", without(sample(1), "flac")),
        r"t\.tar: b\.json: has no \.flac beside it \(half a sample\)",
    ),
    "fewer frames": (
        named("b", without(sample(1), "2.jpg")),
        r"t\.tar: b: has 2 frames, the first sample 3 \(half a sample\)",
    ),
    "duplicate": (
        [*named("c", sample(2)), *named("a", sample(3))],
        r"t\.tar: a\.json: another sample has this key",
    ),
    "interleaved": (
        [*named("b", without(sample(1), "2.jpg")), *named("a", only(sample(2), "2.jpg"))],
        r"t\.tar: a\.2\.jpg: another sample has this key",
    ),
    "double member": (
        named("b", sample(1)) + named("b", only(sample(1), "flac")),
        r"t\.tar: b\.json: has members of the same name",
    ),
    "another size": (
        named("b", sample(1, size=48)),
        r"t\.tar: b: has frames of 48 pixels, others of 32",
    ),
    "no picture": (
        named("b", {**sample(1), "0.jpg": b"no picture"}),
        r"t\.tar: b\.json: its frame b\.0\.jpg is not a JPEG picture",
    ),
}


@pytest.mark.parametrize(("members", "message"), BAD.values(), ids=BAD)
def test_a_sample_that_cannot_be_used_is_named_and_can_be_left_out(tmp_path, members, message):
    write_tar(tmp_path / "t.tar", [*named("a", sample(0)), *members, *named("z", sample(9))])
    with pytest.raises(UserError, match=message):
        avprep.index_tars([tmp_path])
    assert [path.name for path in tmp_path.iterdir()] == ["t.tar"]
    found = avprep.index_tars([tmp_path], IndexOptions(bad_samples="skip"))
    assert found.problems
    kept = read_back(tmp_path)
    assert {"a": sample(0), "z": sample(9)}.items() <= kept.items()
    info = read_dataset(tmp_path)
    assert info.clips == info.samples + len(found.problems)
    assert not verify(str(tmp_path), avprep.VerifyOptions(deep=True)).damaged


def test_interleaved_halves_are_both_named(tmp_path):
    one, two = sample(1), sample(2)
    names = [[("a", "json"), ("b", "json")]]
    names += [[("a", suffix), ("b", suffix)] for suffix in ("flac", "0.jpg", "1.jpg", "2.jpg")]
    members = [
        (f"{key}.{suffix}", {"a": one, "b": two}[key][suffix])
        for pair in names
        for key, suffix in pair
    ]
    write_tar(tmp_path / "t.tar", members)
    with pytest.raises(UserError, match=r"a\.flac: its sample is interleaved with others"):
        avprep.index_tars([tmp_path])


def test_a_name_in_two_tars_is_named(tmp_path):
    for name in ("one.tar", "two.tar"):
        write_tar(tmp_path / name, named("k", sample(1)))
    with pytest.raises(UserError, match=r"two\.tar: k: has the id 'k', as has .*one\.tar: k"):
        avprep.index_tars([tmp_path])


@pytest.mark.parametrize(
    ("mode", "program"), [("gz", "gunzip"), ("bz2", "bunzip2"), ("xz", "unxz")]
)
def test_a_compressed_tar_is_refused_with_the_remedy(tmp_path, mode, program):
    path = tmp_path / f"t.tar.{mode}"
    with tarfile.open(path, f"w:{mode}") as tar:
        tar.addfile(tarfile.TarInfo("a.json"), io.BytesIO())
    with pytest.raises(UserError, match=rf"is compressed.*{program} < t\.tar\.{mode} > t\.tar"):
        avprep.index_tars([path])


def test_sound_that_training_does_not_take_is_refused(tmp_path):
    pcm = np.zeros(8000, np.int16)
    write_tar(tmp_path / "t.tar", named("k", {**sample(1), "flac": encode_flac(pcm, 44100)}))
    with pytest.raises(UserError, match=r"k\.flac has 44100 Hz and 1 channels\. Training takes"):
        avprep.index_tars([tmp_path])
    write_tar(tmp_path / "t.tar", named("k", {**sample(1), "flac": b"ID3" + bytes(100)}))
    with pytest.raises(UserError, match=r"k\.flac is not FLAC or WAV"):
        avprep.index_tars([tmp_path])


def test_tars_of_video2dataset_lead_to_the_commands_that_decode_videos(tmp_path):
    (tmp_path / "v").mkdir()
    for shard in range(2):
        members = [
            (f"{shard:05d}{number:04d}.{suffix}", data)
            for number in range(3)
            for suffix, data in {"json": b"{}", "mp4": b"video", "txt": b"a dog barks"}.items()
        ]
        write_tar(tmp_path / "v" / f"{shard:05d}.tar", members)
    with pytest.raises(UserError) as refused:
        avprep.index_tars([tmp_path / "v"])
    assert "000000000 is a video, and `avprep index` takes sound and pictures" in str(refused.value)
    first, second = re.findall("`avprep (?!index)(.*?)`", str(refused.value))
    command = shlex.split(first.replace("m.json", str(tmp_path / "m.json")))
    result = CliRunner().invoke(group, command)
    assert result.exit_code == 0, result.output
    assert len(avprep.read_manifest(tmp_path / "m.json")) == 6
    assert second == "shard m.json --out SHARDS"


@pytest.mark.parametrize("size", [100, 1000, 5000])
def test_a_tar_that_is_cut_short_or_no_tar_is_refused(tmp_path, size):
    write_tar(tmp_path / "t.tar", named("k", sample(1)))
    data = (tmp_path / "t.tar").read_bytes()
    (tmp_path / "t.tar").write_bytes(data[:size])
    with pytest.raises(UserError, match=r"t\.tar: (is cut short|is not a tar)"):
        avprep.index_tars([tmp_path])
    (tmp_path / "t.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(UserError, match=r"t\.tar: is not a tar"):
        avprep.index_tars([tmp_path])


def test_folders_of_our_own_shards_are_not_touched(tmp_path, demo_clip):
    clips = [avprep.Clip("x", video=str(demo_clip))]
    labels = avprep.label_set_from_names([])
    out = tmp_path / "s"
    avprep.build_shard_set(clips, labels, str(out), avprep.ShardSetOptions(), avprep.PoolOptions(1))
    with pytest.raises(UserError, match=r"is a shard set of `avprep shard`"):
        avprep.index_tars([out])


def test_a_tar_that_changed_since_is_found(tmp_path):
    write_tar(tmp_path / "t.tar", named("a", sample(1)) + named("b", sample(2)))
    avprep.index_tars([tmp_path])
    whole = (tmp_path / "t.tar").read_bytes()
    entry = read_index(tmp_path, "t.tar").samples[1]
    (tmp_path / "t.tar").write_bytes(
        whole[: entry.offset] + b"\xff" * 9 + whole[entry.offset + 9 :]
    )
    (check,) = verify(str(tmp_path)).damaged
    assert check.problems[0].startswith("b: does not begin at byte")
    (tmp_path / "t.tar").write_bytes(whole + bytes(512))
    (check,) = verify(str(tmp_path)).damaged
    assert "run `avprep index` again" in check.problems[0]


def test_their_clips_are_measured_with_or_without_json(tmp_path):
    members = {**without(sample(2), "json"), "json": b"[]"}
    write_tar(tmp_path / "t.tar", named("a", without(sample(1), "json")) + named("b", members))
    avprep.index_tars([tmp_path])
    measured = avprep.measure(str(tmp_path))
    assert (measured.measured, measured.unreadable) == (2, ())
    assert not verify(str(tmp_path)).files


def test_a_report_shows_their_clips(tmp_path):
    pcm = np.arange(8000, dtype=np.int16)
    (tmp_path / "flac").mkdir()
    (tmp_path / "wav").mkdir()
    write_tar(tmp_path / "flac" / "t.tar", named("k", sample(1)))
    write_tar(tmp_path / "wav" / "t.tar", named("k", {**sample(1), "wav": encode_wav(pcm)}))
    for audio in ("flac", "wav"):
        avprep.index_tars([tmp_path / audio], IndexOptions(audio=audio))
        made = avprep.report(str(tmp_path / audio), tmp_path / "page.html")
        assert not made.unreadable
        page = (tmp_path / "page.html").read_text()
        assert f"data:audio/{audio};base64," in page


def test_the_command_prints_it_for_people_and_for_programs(tmp_path):
    write_tar(tmp_path / "t.tar", [*named("a", sample(1)), ("b.json", b"{}")])
    command = ["index", str(tmp_path / "t.tar"), "--labels", "json:labels"]
    refused = CliRunner().invoke(group, command)
    assert isinstance(refused.exception, UserError)
    command += ["--bad-samples", "skip"]
    said = CliRunner().invoke(group, command).stdout
    assert said.startswith(
        f"{tmp_path}: 1 shard, 1 sample, 2 classes, 0.00 h of audio\n1 left out:"
    )
    facts = json.loads(CliRunner().invoke(group, [*command, "--json"]).stdout)
    assert (facts["samples"], facts["left_out"]) == (1, {"no-audio": 1})


def test_tars_that_were_put_together_are_read_to_the_end(tmp_path):
    write_tar(tmp_path / "t.tar", named("a", sample(1)))
    write_tar(tmp_path / "b.tar", named("b", sample(2)))
    with (tmp_path / "t.tar").open("ab") as file:
        file.write((tmp_path / "b.tar").read_bytes())
    (tmp_path / "b.tar").unlink()
    avprep.index_tars([tmp_path])
    assert read_back(tmp_path) == {"a": sample(1), "b": sample(2)}


def test_a_hole_in_a_tar_does_not_pass_for_its_end(tmp_path):
    write_tar(tmp_path / "t.tar", named("a", sample(1)) + named("b", sample(2)))
    avprep.index_tars([tmp_path])
    begin = read_index(tmp_path, "t.tar").samples[1].offset
    with (tmp_path / "t.tar").open("r+b") as file:
        file.seek(begin)
        file.write(bytes(4096))
    with pytest.raises(UserError, match=r"t\.tar: is damaged \(no valid header at byte"):
        avprep.index_tars([tmp_path])


def test_an_empty_file_and_a_compressed_tar_in_a_folder_are_not_passed_over(tmp_path):
    write_tar(tmp_path / "a.tar", named("a", sample(1)))
    (tmp_path / "b.tar").touch()
    with pytest.raises(UserError, match=r"b\.tar: is empty \(0 bytes\)"):
        avprep.index_tars([tmp_path])
    (tmp_path / "b.tar").unlink()
    (tmp_path / "b.tar.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(UserError, match=r"b\.tar\.gz: is compressed"):
        avprep.index_tars([tmp_path])


def test_the_remedy_for_a_compressed_tar_does_not_overwrite_it(tmp_path):
    (tmp_path / "my t.tar").write_bytes(b"\x1f\x8b")
    with pytest.raises(UserError, match=r"gunzip < 'my t\.tar' > 'my t-plain\.tar'"):
        avprep.index_tars([tmp_path])


@pytest.mark.parametrize("linked", ["json", "1.jpg", "flac"])
def test_a_member_that_is_a_link_costs_its_sample_which_is_named(tmp_path, linked):
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for name, data in named("a", sample(1)) + named("b", sample(2)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if name == f"b.{linked}":
                info.type, info.linkname, info.size = tarfile.LNKTYPE, f"a.{linked}", 0
            tar.addfile(info, io.BytesIO(data))
    found = avprep.index_tars([tmp_path], IndexOptions(bad_samples="skip"))
    (problem,) = found.problems
    assert problem.cause == "unreadable"
    assert f"its b.{linked} is a link to 'a.{linked}'" in problem.detail
    assert read_back(tmp_path) == {"a": sample(1)}


ODD_JSON = {
    "deep": b'{"labels":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "half a surrogate pair": b'{"labels": ["\\ud800"], "video_id": "x"}',
    "no name": b'{"labels": [], "video_id": null}',
    "empty name": b'{"labels": [], "video_id": ""}',
}


@pytest.mark.parametrize("text", ODD_JSON.values(), ids=ODD_JSON)
def test_odd_json_costs_its_sample(tmp_path, text):
    write_tar(tmp_path / "t.tar", named("a", sample(0)) + named("b", {**sample(1), "json": text}))
    options = IndexOptions(labels="json:labels", id="json:video_id", bad_samples="skip")
    (problem,) = avprep.index_tars([tmp_path], options).problems
    assert problem.video_id == "b"
    assert problem.cause == "garbage"
    assert [entry.key for entry in read_index(tmp_path, "t.tar").samples] == ["a"]


def test_sound_that_is_not_taken_costs_its_sample_where_samples_may_be_left_out(tmp_path):
    pcm = np.zeros(8000, np.int16)
    bad = named("b", {**sample(1), "flac": encode_flac(pcm, 44100)})
    write_tar(tmp_path / "t.tar", named("a", sample(0)) + bad)
    skip = IndexOptions(bad_samples="skip")
    (problem,) = avprep.index_tars([tmp_path], skip).problems
    assert "its sound b.flac has 44100 Hz and 1 channels" in problem.detail
    write_tar(tmp_path / "t.tar", bad)
    with pytest.raises(UserError, match=r"no sample can be used\. The first: .*b\.flac has 44100"):
        avprep.index_tars([tmp_path], skip)


def test_an_empty_frame_costs_its_sample(tmp_path):
    bad = named("b", {**sample(1), "1.jpg": b""})
    write_tar(tmp_path / "t.tar", named("a", sample(0)) + bad)
    with pytest.raises(UserError, match=r"its frame b\.1\.jpg is empty"):
        avprep.index_tars([tmp_path])


@pytest.mark.parametrize("before", [b"", b"bext" + bytes(4) + b"JUNK\x10\0\0\0" + b"fmt data" * 2])
def test_chunks_of_a_wav_are_found_behind_others(tmp_path, before):
    wav = encode_wav(np.arange(8000, dtype=np.int16))
    note = b"LIST" + (5000).to_bytes(4, "little") + bytes(5000)
    members = {**sample(1), "wav": wav[:12] + before + wav[12:36] + note + wav[36:]}
    write_tar(tmp_path / "t.tar", named("a", members))
    assert avprep.index_tars([tmp_path], IndexOptions(audio="wav")).seconds == 0.5


def test_a_wav_whose_samples_do_not_take_whole_bytes_is_refused(tmp_path):
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(8000), 16000, format="WAV", subtype="IMA_ADPCM")
    write_tar(tmp_path / "t.tar", named("k", {**sample(1), "wav": buffer.getvalue()}))
    with pytest.raises(UserError, match=r"k\.wav is not FLAC or WAV"):
        avprep.index_tars([tmp_path], IndexOptions(audio="wav"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (IndexOptions(audio="", frame=""), "--audio and --frame are both empty"),
        (IndexOptions(labels="json"), "--labels json: name the key"),
        (IndexOptions(id="json:"), "--id json:: name the key"),
    ],
)
def test_options_that_name_nothing_are_refused(tmp_path, options, message):
    write_tar(tmp_path / "t.tar", named("a", sample(0)))
    with pytest.raises(UserError, match=message):
        avprep.index_tars([tmp_path], options)


def test_a_tar_whose_name_is_not_utf_8_is_refused_and_a_link_to_itself_too(tmp_path):
    write_tar(tmp_path / "t.tar", named("a", sample(0)))
    (tmp_path / "t.tar").rename(tmp_path / "t\udcff.tar")
    with pytest.raises(UserError, match=r"its name is not UTF-8. Rename it"):
        avprep.index_tars([tmp_path])
    (tmp_path / "t\udcff.tar").unlink()
    (tmp_path / "t.tar").symlink_to("t.tar")
    with pytest.raises(UserError, match=r"t\.tar: no such file"):
        avprep.index_tars([tmp_path])
