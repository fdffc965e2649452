"""A file that holds less than it promises becomes a sample that says so, or a failure if asked."""

from __future__ import annotations

import csv
import json
import struct
from pathlib import Path

import pytest

from avprep.audio import encode_flac, encode_wav, promised_samples
from avprep.clips import Clip
from avprep.decode import DecodeOptions, Media, decode_clip
from avprep.decode.extent import PacketSpans
from avprep.decode.header import Header, read_header
from avprep.encode.sample import encode_clip
from avprep.errors import DecodeError
from avprep.manifest.model import write_manifest
from avprep.options import SampleOptions
from avprep.shards.format import read_dataset, read_index, split_members
from tests.conftest import run_command
from tests.media import Movie, make_movie, run_ffmpeg

YUV = ("-pix_fmt", "yuv420p")
H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "25", *YUV)
MPEG4 = ("-c:v", "mpeg4", "-q:v", "3", *YUV)
WMV = ("-c:v", "wmv2", "-q:v", "3", *YUV)
AAC = ("-c:a", "aac")
FAST = ("-movflags", "+faststart")
FRAGMENTS = ("-movflags", "frag_keyframe+empty_moov+default_base_moof")
SECONDS = 12
# What promises its length at the beginning, so that a cut one says how much is lost.
CONTAINERS = {
    "plain.mp4": (H264, AAC, FAST),
    "plain.mkv": (H264, AAC, ()),
    "sound.webm": (("-c:v", "libvpx", "-deadline", "realtime"), ("-c:a", "libopus"), ()),
    "plain.avi": (MPEG4, ("-c:a", "mp2"), ()),
    "plain.flv": (H264, AAC, ()),
    "plain.wmv": (WMV, ("-c:a", "wmav2"), ()),
}
each_engine = pytest.mark.parametrize("engine", ["pyav", "ffmpeg"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("extent")


def film(
    folder: Path, name: str, video=H264, audio=AAC, extra=(), seconds: float = SECONDS
) -> Path:
    path = folder / name
    if not path.exists():
        movie = Movie(
            name, video=video, audio=audio, extra=extra,
            frames=round(25 * seconds), audio_seconds=seconds, width=64, height=64,
        )  # fmt: skip
        make_movie(folder, movie)
    return path


def decode(path: Path, engine: str, *segment: float | None, **options: object) -> Media:
    return decode_clip(path, *segment, options=DecodeOptions(decoder=engine, **options))


@each_engine
@pytest.mark.parametrize("share", [1.0, 0.9, 0.5, 0.2])
@pytest.mark.parametrize("name", CONTAINERS)
def test_a_cut_file_says_what_it_lacks(folder, name, share, engine):
    whole = film(folder, name, *CONTAINERS[name])
    data = whole.read_bytes()
    path = folder / f"{share}-{engine}-{name}"
    path.write_bytes(data[: round(share * len(data))])
    media = decode(path, engine)
    assert media.extent.is_complete == (share == 1.0)
    assert media.extent.promised == pytest.approx(SECONDS, abs=0.1)
    assert media.extent.found == pytest.approx(len(media.pcm) / 16000, abs=0.4)
    assert media.extent.found <= media.extent.promised
    if share < 1.0:
        with pytest.raises(DecodeError, match="of the 12") as failure:
            decode(path, engine, incomplete="fail")
        assert failure.value.cause == "truncated"
    else:
        assert len(decode(path, engine, incomplete="fail").pcm) == len(media.pcm)


@each_engine
def test_only_what_a_sample_would_use_counts(folder, engine):
    data = film(folder, "plain.mp4", *CONTAINERS["plain.mp4"]).read_bytes()
    path = folder / f"late-cut-{engine}.mp4"
    path.write_bytes(data[: round(0.9 * len(data))])
    for segment, longest, complete in (
        ((None, None), 30.0, False),
        ((None, None), 8.0, True),
        ((0.0, 5.0), 30.0, True),
        ((2.0, 8.0), 30.0, True),
        ((5.0, 11.5), 30.0, False),
        ((5.0, None), 2.0, False),  # pictures of ten seconds are used
    ):
        extent = decode(path, engine, *segment, max_audio=longest).extent
        assert extent.is_complete == complete, (segment, longest)


@each_engine
@pytest.mark.parametrize("name", ["plain.mp4", "plain.mkv"])
def test_a_segment_that_a_cut_took_away_is_truncated(folder, name, engine):
    data = film(folder, name, *CONTAINERS[name]).read_bytes()
    path = folder / f"no-end-{engine}-{name}"
    path.write_bytes(data[: len(data) // 2])
    for start, cause in ((10.0, "truncated"), (20.0, "too-short")):
        with pytest.raises(DecodeError) as failure:
            decode(path, engine, start, start + 2.0)
        assert failure.value.cause == cause
    assert len(decode(path, engine, 1.0, 3.0).pcm) / 16000 == pytest.approx(2.0, abs=0.05)


@each_engine
@pytest.mark.parametrize("damage", ["zeros", "missing"])
def test_a_damaged_fragment_is_lacking(folder, damage, engine):
    data = film(folder, "fragments.mp4", extra=FRAGMENTS).read_bytes()
    assert decode(folder / "fragments.mp4", engine).extent.is_complete
    starts = [at - 4 for at in range(len(data)) if data.startswith(b"moof", at)]
    begin, end = starts[5], starts[6]
    filling = bytes(64) + data[begin + 64 : end] if damage == "zeros" else b""
    path = folder / f"{damage}-{engine}.mp4"
    path.write_bytes(data[:begin] + filling + data[end:])
    extent = decode(path, engine).extent
    assert not extent.is_complete
    assert extent.found <= 11.2


@each_engine
def test_a_fragment_that_lost_its_sound_is_lacking(folder, engine):
    """Its pictures may be there: they come first."""
    data = film(folder, "fragments.mp4", extra=FRAGMENTS).read_bytes()
    last = data.rindex(b"moof") - 4
    head = int.from_bytes(data[last : last + 4], "big")
    pictures = _first_size_of_runs(data[last : last + head])
    path = folder / f"no-sound-{engine}.mp4"
    path.write_bytes(data[: last + head + 8 + pictures])
    extent = decode(path, engine).extent
    assert not extent.is_complete
    assert extent.promised == pytest.approx(SECONDS, abs=0.1)


def _first_size_of_runs(moof: bytes) -> int:
    """Bytes of the samples of the first track: where the second's begin, less the first's."""
    first, second = (
        struct.unpack_from(">i", moof, at + 12)[0]
        for at in range(len(moof))
        if moof.startswith(b"trun", at)
    )
    return second - first


@each_engine
def test_slow_pictures_in_avi_and_in_fragments_are_complete(folder, engine):
    for name, codecs in (
        ("slow.avi", ("-c:v", "mpeg4", "-c:a", "libmp3lame")),
        ("late-sound.avi", ("-c:v", "mpeg4", "-c:a", "libmp3lame")),
        ("late-sound.mp4", (*H264, *AAC, *FRAGMENTS)),
    ):
        path = folder / f"{engine}-{name}"
        rate, late = ("r=0.5", 0) if name.startswith("slow") else ("r=25", 3)
        run_ffmpeg(
            *("-f", "lavfi", "-i", f"testsrc=s=64x64:{rate}:d=8", "-itsoffset", late),
            *("-f", "lavfi", "-i", "sine=d=5", *YUV, *codecs, path),
        )
        assert decode(path, engine).extent.is_complete, name
        assert decode(path, engine, 1.0, 5.0).extent.is_complete, name


@each_engine
def test_a_damaged_middle_is_lacking_although_the_index_is_whole(folder, engine):
    data = bytearray(film(folder, "plain.mp4", *CONTAINERS["plain.mp4"]).read_bytes())
    begin = data.index(b"mdat")
    size = (len(data) - begin) // 5
    data[begin + 2 * size : begin + 3 * size] = bytes(size)
    path = folder / f"middle-{engine}.mp4"
    path.write_bytes(data)
    media = decode(path, engine)
    assert not media.extent.is_complete
    assert media.extent.found == pytest.approx(len(media.pcm) / 16000, abs=0.4)


@each_engine
@pytest.mark.parametrize("seconds", [(12.0, 6.0), (6.0, 12.0)])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "flv"])
def test_sound_or_pictures_that_end_early_are_complete(folder, seconds, suffix, engine):
    shown, heard = seconds
    name = f"early-{shown:g}.{suffix}"
    movie = Movie(
        name, video=H264, audio=AAC, width=64, height=64,
        frames=round(25 * shown), audio_seconds=heard,
    )  # fmt: skip
    path = folder / name
    media = decode(path if path.exists() else make_movie(folder, movie), engine)
    assert media.extent.is_complete
    assert len(media.pcm) / 16000 == pytest.approx(heard, abs=0.1)


def test_one_picture_per_second_is_complete(folder):
    for suffix in ("mkv", "flv", "mp4"):
        path = folder / f"slow.{suffix}"
        run_ffmpeg(
            *("-f", "lavfi", "-i", "testsrc=s=64x64:r=1:d=8", "-f", "lavfi", "-i", "sine=d=7.2"),
            *(*H264, *AAC, str(path)),
        )
        assert decode(path, "pyav").extent.is_complete


def test_lengths_that_heads_get_wrong_are_no_promise(folder):
    data = film(folder, "plain.mp4", *CONTAINERS["plain.mp4"]).read_bytes()
    for name, offset in ((b"mvhd", 20), (b"tkhd", 24), (b"mdhd", 20)):
        at = data.index(name) + offset
        told = struct.unpack_from(">I", data, at)[0]
        path = folder / f"wrong-{name.decode()}.mp4"
        path.write_bytes(data[:at] + struct.pack(">I", 3 * told) + data[at + 4 :])
        assert read_header(path).promised == pytest.approx(SECONDS, abs=0.1)


@pytest.mark.parametrize("name", [*CONTAINERS, "fragments.mp4"])
def test_no_damaged_head_costs_a_clip(folder, name):
    """Every head, cut anywhere and with every byte overwritten, is read to some end."""
    path = folder / "broken-head"
    data = film(folder, name, *CONTAINERS.get(name, (H264, AAC, FRAGMENTS))).read_bytes()[:3000]
    for at in range(0, len(data), 7):
        for broken in (data[:at], data[:at] + b"\xff" + data[at + 1 :]):
            path.write_bytes(broken)
            assert read_header(path).protected == {}


def test_spans_are_added_up_apart_from_pauses():
    spans = PacketSpans()
    for start in (5.0, 0.0, 1.0, 2.4, 8.0):
        spans.add("video", start, 1.0)
    spans.add(None, 6.0, 1.0)  # of a stream that is not used: the file was read there
    extent = spans.extent(Header(promised=9.5), 0.0, {"video": 10.0}, None)
    assert (extent.found, extent.promised) == (3.4 + 2.0 + 1.0, 9.5)
    extent = spans.extent(Header(promised=9.5), 0.5, {"video": 3.0}, None)
    assert (extent.found, extent.promised) == (2.5, 2.5)
    unknown = spans.extent(Header(), 0.0, {"video": 3.0}, None)
    assert unknown.found == unknown.promised == 3.0


@each_engine
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_sound_beyond_what_is_kept_is_not_decoded(folder, suffix, engine):
    """The rest of the file may be damaged: nobody looks at it."""
    data = bytearray(
        film(folder, f"tail.{suffix}", extra=FAST if suffix == "mp4" else ()).read_bytes()
    )
    data[-len(data) // 20 :] = b"\xff" * (len(data) - len(data[: -len(data) // 20]))
    path = folder / f"tail-{engine}.{suffix}"
    path.write_bytes(data)
    media = decode(path, engine, max_audio=4.0)
    assert (len(media.pcm), media.is_shortened) == (64000, True)
    assert media.extent.is_complete


def test_packed_sound_that_was_cut_says_so(tmp_path, folder):
    pcm = decode(film(folder, "plain.mkv", *CONTAINERS["plain.mkv"]), "pyav").pcm
    data = encode_wav(pcm)
    assert promised_samples(data) == promised_samples(encode_flac(pcm)) == len(pcm)
    wav = tmp_path / "cut.wav"
    for share in (1.0, 0.5):
        wav.write_bytes(data[: round(share * len(data))])
        sample = encode_clip(Clip("cut", wav=str(wav)), SampleOptions(DecodeOptions(frames=0)))
        assert sample.complete == (share == 1.0)
        assert sample.seconds_promised == pytest.approx(len(pcm) / 16000, abs=0.001)
        assert sample.seconds_found == pytest.approx(sample.num_samples / 16000, abs=0.001)
    longer = SampleOptions(DecodeOptions(frames=0, incomplete="fail"))
    with pytest.raises(DecodeError) as failure:
        encode_clip(Clip("cut", wav=str(wav)), longer)
    assert failure.value.cause == "truncated"


@pytest.fixture(scope="module")
def clips(folder: Path) -> list[Clip]:
    data = film(folder, "plain.mp4", *CONTAINERS["plain.mp4"]).read_bytes()
    cut = folder / "cut.mp4"
    cut.write_bytes(data[: len(data) // 2])
    return [
        Clip("whole", video=str(folder / "plain.mp4"), labels=("dog",), split="train"),
        Clip("cut", video=str(cut)),
        Clip("segment", video=str(cut), start=1, end=4),
    ]


def test_shards_summary_and_report_count_incomplete_samples(tmp_path, clips):
    (tmp_path / "labels.csv").write_text("index,mid,display_name\n0,dog,dog\n")
    write_manifest(tmp_path / "m.json", clips)
    shard = ("avprep", "shard", "m.json", "--labels", "labels.csv", "--samples-per-shard", "3")
    printed = run_command(tmp_path, " ".join(shard[:2]), *shard[2:], "--out", "kept")
    assert "incomplete: 1 (" in printed
    facts = json.loads(run_command(tmp_path, "avprep shard", *shard[2:], "--out", "kept", "--json"))
    assert (facts["samples"], facts["incomplete"]) == (3, 1)
    info = read_dataset(tmp_path / "kept")
    assert info.incomplete == 1
    index = read_index(tmp_path / "kept", info.shards[0].name)
    entries = {entry.video_id: entry for entry in index.samples}
    assert [entries[name].complete for name in ("whole", "cut", "segment")] == [True, False, True]
    assert entries["cut"].seconds_promised == pytest.approx(12.0, abs=0.1)
    tar = (tmp_path / "kept" / info.shards[0].name).read_bytes()
    told = {}
    for entry in index.samples:
        members = split_members(tar[entry.offset : entry.offset + entry.size], entry.key)
        told[entry.video_id] = json.loads(bytes(members["json"]))
    assert {tuple(each) for each in told.values()} == {tuple(told["cut"])}
    assert [type(value) for value in told["cut"]["segment"]] == [float, float]
    assert told["segment"]["segment"] == [1.0, 4.0]
    assert told["whole"]["segment"] == pytest.approx([0.0, 12.0], abs=0.1)
    assert [told[name]["complete"] for name in ("whole", "cut", "segment")] == [True, False, True]
    assert told["cut"]["seconds_found"] == entries["cut"].seconds_found
    assert index.samples[0].video_id == "whole"  # the one that has labels
    run_command(tmp_path, "avprep verify", "kept", "--deep")
    page = json.loads(run_command(tmp_path, "avprep report", "kept", "--out", "p.html", "--json"))
    assert page["incomplete"] == 1
    assert "Incomplete: 1 (" in (tmp_path / "p.html").read_text()

    run_command(tmp_path, "avprep shard", *shard[2:], "--out", "strict", "--incomplete", "fail")
    with open(tmp_path / "strict" / "failures.csv", newline="") as file:
        failures = [(row["video_id"], row["cause"]) for row in csv.DictReader(file)]
    assert failures == [("cut", "truncated")]


def test_extraction_counts_incomplete_clips(tmp_path, clips):
    (tmp_path / "videos").mkdir()
    for clip in clips[:2]:
        (tmp_path / "videos" / f"{clip.video_id}.mp4").symlink_to(clip.video)
    printed = run_command(tmp_path, "avprep extract", "videos", "--out", "kept")
    assert "incomplete: 1 (" in printed
    facts = run_command(
        tmp_path, "avprep extract", "videos", "--out", "strict", "--incomplete", "fail", "--json"
    )
    assert json.loads(facts)["failed"] == {"truncated": 1}
