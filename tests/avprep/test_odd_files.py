"""Nothing around pictures and sound costs a clip, and nothing else becomes one; both engines."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from avprep.decode import DecodeOptions, Media, decode_clip
from avprep.decode.header import read_header
from avprep.errors import DecodeError
from tests.media import Movie, ideal, make_movie, numbers_of, run_ffmpeg

YUV = ("-pix_fmt", "yuv420p")
H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "25", *YUV)
AAC = ("-c:a", "aac", "-aac_pns", "0")
PLAIN = [0, 4, 9, 14, 19, 24, 29, 34, 39, 44]  # of 50 frames
each_engine = pytest.mark.parametrize("engine", ["pyav", "ffmpeg"])


def decode(path: Path, engine: str, *segment: float | None) -> Media:
    return decode_clip(path, *segment, options=DecodeOptions(decoder=engine))


def failure_of(path: Path, engine: str, *segment: float | None) -> DecodeError:
    with pytest.raises(DecodeError) as failure:
        decode(path, engine, *segment)
    assert str(path) in failure.value.detail
    return failure.value


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("odd")


@pytest.fixture(scope="module")
def films(folder: Path) -> Callable[[str], Path]:
    """The same film of two seconds in a container of each kind, made once."""

    def film(suffix: str) -> Path:
        path = folder / f"film.{suffix}"
        if path.exists():
            return path
        video, audio = H264, AAC
        if suffix in ("avi", "wmv", "vob"):
            codec = {"avi": "mpeg4", "wmv": "wmv2", "vob": "mpeg2video"}[suffix]
            video, audio = ("-c:v", codec, "-q:v", "2", *YUV), ("-c:a", "mp2")
        return make_movie(folder, Movie(path.name, video=video, audio=audio))

    return film


# Metadata and further streams -----------------------------------------------------------------

TITLES = {
    "latin-1": b"Caf\xe9 au lait",
    "utf-16": "Café".encode("utf-16").ljust(12, b"\0"),
    "zero-bytes": b"a\0b\0c\0d\0e\0\0\0\0",
    "cut-utf-8": b"Caf\xc3 au lai\xc3",
}


@each_engine
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "flv"])
@pytest.mark.parametrize("title", TITLES)
def test_titles_in_any_encoding_cost_nothing(folder, films, suffix, title, engine):
    path = folder / f"{title}-{engine}.{suffix}"
    placeholder = "T" * len(TITLES[title])
    chapters = folder / "chapters.txt"
    chapters.write_text(
        f";FFMETADATA1\ntitle={placeholder}\nartist={placeholder}\n"
        f"[CHAPTER]\nTIMEBASE=1/10\nSTART=0\nEND=10\ntitle={placeholder}\n"
    )
    run_ffmpeg(
        *("-i", str(films(suffix)), "-i", str(chapters), "-map_metadata", "1", "-c", "copy"),
        *("-metadata:s:a:0", f"title={placeholder}", "-metadata:s:v:0", f"title={placeholder}"),
        str(path),
    )
    data = path.read_bytes()
    assert placeholder.encode() in data
    path.write_bytes(data.replace(placeholder.encode(), TITLES[title]))
    expected = decode(films(suffix), engine)
    media = decode(path, engine)
    assert numbers_of(media) == numbers_of(expected)
    assert np.array_equal(media.pcm, expected.pcm)


@each_engine
def test_subtitles_attachments_languages_and_huge_metadata_cost_nothing(folder, films, engine):
    subtitles, font = folder / "lines.srt", folder / "font.ttf"
    subtitles.write_text("1\n00:00:00,000 --> 00:00:01,000\nhello\n")
    font.write_bytes(bytes(range(256)))
    path = folder / f"much-{engine}.mkv"
    run_ffmpeg(
        *("-i", str(films("mkv")), "-i", str(subtitles), "-map", "1", "-map", "0", "-c", "copy"),
        *("-attach", str(font), "-metadata:s:t", "mimetype=application/x-font"),
        *("-metadata:s:a:0", "language=x-klingon", "-metadata", "comment=" + "x" * 100_000),
        str(path),
    )
    path.write_bytes(path.read_bytes().replace(b"S_TEXT/UTF8", b"S_TEXT/\xe9\xe9\xe9\xe9"))
    assert numbers_of(decode(path, engine)) == PLAIN


def second_programme(folder: Path, first: Path, name: str) -> Path:
    """A transport stream whose second half has other PIDs."""
    rest = folder / f"rest-{name}.ts"
    run_ffmpeg(
        *("-i", str(first), "-c", "copy", "-output_ts_offset", "2", "-mpegts_start_pid", "0x200"),
        *("-mpegts_pmt_start_pid", "0x1001", str(rest)),
    )
    both = folder / f"both-{name}.ts"
    both.write_bytes(first.read_bytes() + rest.read_bytes())
    return both


@each_engine
@pytest.mark.parametrize("segment", [(None, None), (0.5, 1.5), (1.0, None)])
def test_streams_that_appear_within_the_file_cost_nothing(folder, films, segment, engine):
    path = second_programme(folder, films("ts"), f"{engine}-{segment[0]}")
    media = decode(path, engine, *segment)
    length = (segment[1] or 2.0) - (segment[0] or 0.0)
    assert len(media.pcm) / 16000 == pytest.approx(length, abs=0.1)
    # The sound's first block begins up to a frame before the pictures.
    assert abs(numbers_of(media)[0] - (segment[0] or 0.0) * 25) <= 1


def test_a_stream_that_is_announced_but_empty_gives_way_to_one_that_is_there(folder, films):
    two, path = folder / "two.ts", folder / "one-of-two.ts"
    run_ffmpeg(
        *("-i", str(films("ts")), "-i", str(films("ts")), "-map", "0:v", "-map", "0:a"),
        *("-map", "1:v", "-map", "1:a", "-c", "copy", str(two)),
    )
    data = two.read_bytes()
    packets = [data[at : at + 188] for at in range(0, len(data), 188)]
    empty = (0x100, 0x101)  # the first pictures and sound
    path.write_bytes(b"".join(p for p in packets if (p[1] & 0x1F) << 8 | p[2] not in empty))
    media = decode(path, "pyav")
    assert numbers_of(media) == PLAIN
    assert len(media.pcm) / 16000 == pytest.approx(2.0, abs=0.1)


# Sound ----------------------------------------------------------------------------------------


def make_gaps(source: Path, path: Path, gaps: tuple[tuple[float, float], ...]) -> None:
    """Leave out the sound packets of some times."""
    with av.open(str(source)) as film, av.open(str(path), "w") as out:
        streams = {one.index: out.add_stream_from_template(one) for one in film.streams}
        for packet in film.demux():
            if packet.dts is None:
                continue
            time = float(packet.pts * packet.time_base)
            is_sound = packet.stream.type == "audio"
            if is_sound and any(begin <= time < end for begin, end in gaps):
                continue
            packet.stream = streams[packet.stream_index]
            out.mux(packet)


@each_engine
@pytest.mark.parametrize("suffix", ["mkv", "mp4", "mov"])
def test_a_segment_holds_no_sound_from_beyond_its_end(folder, suffix, engine):
    source = folder / f"long.{suffix}"
    if not source.exists():
        make_movie(folder, Movie(source.name, frames=200, audio_seconds=8.0, video=H264, audio=AAC))
    path = folder / f"gaps-{engine}.{suffix}"
    gaps = ((1.0, 2.0), (4.5, 5.0))
    make_gaps(source, path, gaps)
    for start, end in ((0.0, 4.0), (0.5, 1.5), (1.5, 4.0), (3.0, 6.0), (0.0, 6.0), (2.5, 4.0)):
        media = decode(path, engine, start, end)
        silent = sum(max(min(end, stop) - max(start, begin), 0.0) for begin, stop in gaps)
        assert len(media.pcm) / 16000 == pytest.approx(end - start - silent, abs=0.05)
        last = media.pcm[-1600:].astype(float)
        until = min((begin for begin, stop in gaps if begin <= end <= stop), default=end)
        assert likeness(last, until) > 0.9, (start, end)


def likeness(pcm: np.ndarray, until: float) -> float:
    """How well samples fit the film's sound up to a time, give or take a block of AAC."""
    around = ideal(len(pcm) + 1000, until - (len(pcm) + 500) / 16000)
    fits = []
    for shift in range(1000):
        right = around[shift : shift + len(pcm)]
        fits.append(float(pcm @ right / np.sqrt((pcm @ pcm) * (right @ right) + 1)))
    return max(fits)


@pytest.mark.parametrize("how", ["first", "mix"])
@pytest.mark.parametrize("channels", [1, 2])
def test_integers_of_64_bits_are_sound_too(folder, how, channels):
    name = f"s64-{channels}-{how}.mkv"
    path = make_movie(folder, Movie(name, audio=("-c:a", "pcm_s64le"), channels=channels))
    media = decode_clip(path, options=DecodeOptions(decoder="pyav", channels=how))
    witness = decode_clip(path, options=DecodeOptions(decoder="ffmpeg", channels=how))
    assert len(media.pcm) == 32000
    assert np.abs(media.pcm.astype(int) - witness.pcm).max() <= 1


@each_engine
@pytest.mark.parametrize("form", ["mpeg1video", "h264"])
def test_silence_of_an_elementary_stream_lasts_as_long_as_its_pictures(folder, films, form, engine):
    codec = {"mpeg1video": ("-c:v", "mpeg1video", *YUV), "h264": H264}[form]
    path = folder / f"bare-{engine}.{form}"
    run_ffmpeg("-i", str(films("mkv")), "-an", *codec, "-f", form, str(path))
    options = DecodeOptions(decoder=engine, missing_audio="silence")
    assert len(decode_clip(path, options=options).pcm) / 16000 == pytest.approx(2.0, abs=0.09)


def pictures_and_tone(path: Path, pictures: str, *options: str, late: float = 0.0) -> Path:
    """Plain pictures of a length and rate of their own beside 9 s of a tone."""
    run_ffmpeg(
        *("-itsoffset", late, "-f", "lavfi", "-i", f"testsrc=s=64x64:{pictures}"),
        *("-f", "lavfi", "-i", "sine=d=9", *YUV, *options, path),
    )
    return path


@each_engine
@pytest.mark.parametrize(
    "options",
    [
        ("late.mkv", "-c:v", "libx264", "-c:a", "aac"),
        ("late.webm", "-c:v", "libvpx", "-c:a", "libopus"),
        ("late.flv", "-c:v", "libx264", "-c:a", "libmp3lame"),
        ("late.ts", "-c:v", "libx264", "-c:a", "mp2"),
    ],
)
def test_a_segment_before_the_first_picture_has_its_sound(tmp_path, options, engine):
    name, *codecs = options
    path = pictures_and_tone(tmp_path / name, "r=25:d=6", *codecs, late=3.0)
    for start, end in ((0.1, 1.0), (1.5, 3.5), (3.2, 5.0)):
        media = decode(path, engine, start, end)
        assert len(media.pcm) / 16000 == pytest.approx(end - start, abs=0.05)
        assert media.extent.is_complete


@each_engine
def test_a_segment_before_the_first_sound_has_no_audio(tmp_path, engine):
    path = tmp_path / "late.mp4"
    run_ffmpeg(
        *("-f", "lavfi", "-i", "testsrc=s=64x64:r=25:d=6", "-itsoffset", "3"),
        *("-f", "lavfi", "-i", "sine=d=3", *H264, *AAC),
        *("-movflags", "frag_keyframe+empty_moov+default_base_moof", path),
    )
    assert failure_of(path, engine, 0.5, 1.5).cause == "no-audio"
    silent = DecodeOptions(decoder=engine, missing_audio="silence")
    assert len(decode_clip(path, 0.5, 1.5, silent).pcm) == 16000


@each_engine
@pytest.mark.parametrize(
    "options",
    [
        ("still.ts", "-c:v", "libx264", "-c:a", "mp2"),
        ("still.mpg", "-c:v", "mpeg2video", "-c:a", "mp2"),
        ("still.flv", "-c:v", "libx264", "-c:a", "libmp3lame"),
        ("still.avi", "-c:v", "mpeg4", "-c:a", "libmp3lame"),
    ],
)
def test_sound_beside_a_still_picture_is_found_at_any_time(tmp_path, options, engine):
    name, *codecs = options
    path = pictures_and_tone(tmp_path / name, "r=25:d=0.04", *codecs)
    for segment, length in (((None, None), 9.0), ((2.5, 3.5), 1.0), ((6.0, None), 3.0)):
        media = decode(path, engine, *segment)
        assert len(media.pcm) / 16000 == pytest.approx(length, abs=0.08)
        assert media.extent.is_complete


# Protected films ------------------------------------------------------------------------------


def box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), name) + content


def element(name: int, content: bytes) -> bytes:
    """An EBML element."""
    size = struct.pack(">Q", len(content) | 1 << 56)
    return name.to_bytes((name.bit_length() + 7) // 8, "big") + size + content


@each_engine
@pytest.mark.parametrize(
    ("clear", "encrypted", "what"),
    [
        (b"avc1", b"encv", "video"),
        (b"mp4a", b"enca", "audio"),
        (b"avc1", b"drmi", "video"),
        (b"mp4a", b"drms", "audio"),
    ],
)
def test_a_sample_entry_of_an_encrypted_kind_is_protected(
    folder, films, clear, encrypted, what, engine
):
    path = folder / f"{encrypted.decode()}-{engine}.mp4"
    data = films("mp4").read_bytes()
    entry = data.index(clear, data.index(b"stsd"))
    path.write_bytes(data[:entry] + encrypted + data[entry + 4 :])
    failure = failure_of(path, engine)
    assert failure.cause == "protected"
    assert f"its {what} is encrypted" in failure.detail
    assert encrypted.decode() in failure.detail


def test_only_what_a_sample_uses_need_be_clear(folder, films):
    path = folder / "second-sound.mp4"
    run_ffmpeg(
        *("-i", str(films("mp4")), "-map", "0:v", "-map", "0:a", "-map", "0:a"),
        *("-c", "copy", str(path)),
    )
    data = path.read_bytes()
    last = data.rindex(b"mp4a")  # its sample entry; `esds` comes later
    path.write_bytes(data[:last] + b"enca" + data[last + 4 :])
    assert numbers_of(decode(path, "pyav")) == PLAIN
    video = data.index(b"avc1", data.index(b"stsd"))
    path.write_bytes(data[:video] + b"encv" + data[video + 4 :])
    sound = decode_clip(path, options=DecodeOptions(frames=0, decoder="pyav"))
    assert len(sound.pcm) > 30000
    assert failure_of(path, "pyav").cause == "protected"


def matroska(encodings: bytes) -> bytes:
    """The head of a film with one track of pictures."""
    track = element(0xD7, b"\1") + element(0x83, b"\1") + element(0x86, b"V_VP9") + encodings
    info = element(0x1549A966, element(0x4489, struct.pack(">d", 10_000.0)))
    tracks = element(0x1654AE6B, element(0xAE, track))
    return element(0x1A45DFA3, element(0x4282, b"webm")) + element(0x18538067, info + tracks)


@each_engine
def test_content_encryption_in_webm_is_protected(tmp_path, engine):
    key = element(0x5035, element(0x47E1, b"\5") + element(0x47E2, bytes(16)))
    encoding = element(0x6240, element(0x5033, b"\1") + key)
    path = tmp_path / "film.webm"
    path.write_bytes(matroska(element(0x6D80, encoding)))
    assert failure_of(path, engine).cause == "protected"
    compression = element(0x6240, element(0x5034, element(0x4254, b"\0")))
    path.write_bytes(matroska(element(0x6D80, compression)))
    header = read_header(path)
    assert (header.protected, header.promised) == ({}, 10.0)


def scrambled_transport(data: bytes, pid: int, since: float) -> bytes:
    out = bytearray(data)
    for at in range(0, len(data), 188):
        if (out[at + 1] & 0x1F) << 8 | out[at + 2] == pid and at >= since * len(data):
            out[at + 3] |= 0x80
    return bytes(out)


@each_engine
@pytest.mark.parametrize(("pid", "what"), [(0x100, "video"), (0x101, "audio")])
@pytest.mark.parametrize("since", [0.0, 0.4])
@pytest.mark.parametrize("step", [188, 192])
def test_a_scrambled_transport_stream_is_protected(folder, films, pid, what, since, step, engine):
    path = folder / f"scrambled-{pid}-{since}-{step}-{engine}.ts"
    data = scrambled_transport(films("ts").read_bytes(), pid, since)
    packets = (data[at : at + 188] for at in range(0, len(data), 188))
    path.write_bytes(b"".join(bytes(step - 188) + packet for packet in packets))
    failure = failure_of(path, engine)
    assert failure.cause == "protected"
    assert what in failure.detail


@each_engine
def test_scrambled_packets_within_a_transport_stream_are_protected(folder, films, engine):
    data = bytearray(films("ts").read_bytes())
    at = data.find(b"\0\0\1\xe0")
    while at >= 0:
        data[at + 6] |= 0x10
        at = data.find(b"\0\0\1\xe0", at + 4)
    path = folder / f"scrambled-packets-{engine}.ts"
    path.write_bytes(data[100:])  # and it begins within a packet
    assert failure_of(path, engine).cause == "protected"


def test_a_flipped_bit_scrambles_nothing(folder, films):
    data = bytearray(films("ts").read_bytes())
    data[188 * 40 + 3] |= 0x80
    path = folder / "flipped.ts"
    path.write_bytes(data)
    assert len(decode(path, "pyav").frames) == 10


@each_engine
def test_a_scrambled_programme_stream_is_protected(folder, films, engine):
    data = bytearray(films("vob").read_bytes())
    at = data.find(b"\0\0\1\xe0")
    while at >= 0:
        data[at + 6] |= 0x10
        at = data.find(b"\0\0\1\xe0", at + 4)
    path = folder / f"scrambled-{engine}.vob"
    path.write_bytes(data)
    assert failure_of(path, engine).cause == "protected"


@each_engine
def test_windows_media_with_rights_management_is_protected(folder, films, engine):
    data = films("wmv").read_bytes()
    rights = bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e") + struct.pack("<Q", 40) + bytes(16)
    size, count = struct.unpack_from("<QI", data, 16)
    head = data[:16] + struct.pack("<QI", size + len(rights), count + 1) + data[28:30]
    path = folder / f"rights-{engine}.wmv"
    path.write_bytes(head + rights + data[30:])
    assert failure_of(path, engine).cause == "protected"


@each_engine
def test_filtered_flash_video_is_protected(folder, films, engine):
    data = bytearray(films("flv").read_bytes())
    at = 13
    while at < len(data):
        size = int.from_bytes(data[at + 1 : at + 4], "big")
        data[at] |= 0x20 * (data[at] in (8, 9))
        at += 11 + size + 4
    path = folder / f"filtered-{engine}.flv"
    path.write_bytes(data)
    assert failure_of(path, engine).cause == "protected"


# Lists of other files -------------------------------------------------------------------------


@pytest.fixture
def neighbour(films, tmp_path: Path) -> Path:
    run_ffmpeg("-i", str(films("mp4")), "-frames:v", "3", str(tmp_path / "n%d.png"))
    shutil.copy(films("ts"), tmp_path / "neighbour.ts")
    return shutil.copy(films("mp4"), tmp_path / "neighbour.mp4")


LISTS = {
    "ffconcat": "ffconcat version 1.0\nfile neighbour.mp4\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nneighbour.ts\n#EXT-X-ENDLIST\n",
    "dash": '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT2S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011">'
    '<Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1">'
    "<BaseURL>neighbour.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
    "avisynth": 'AVISource("neighbour.mp4")\n',
    "vobsub": "# VobSub index file, v7\nid: en, index: 0\n",
    "html": "<!doctype html><title>404</title>",
}


@each_engine
@pytest.mark.parametrize("kind", LISTS)
@pytest.mark.parametrize("suffix", ["mp4", "avi", "ts"])
def test_a_list_of_other_files_becomes_no_sample(neighbour, kind, suffix, engine):
    path = neighbour.with_name(f"film.{suffix}")
    path.write_text(LISTS[kind])
    failure = failure_of(path, engine)
    assert failure.cause == "garbage"
    assert "not a media file" in failure.detail
    if kind in ("ffconcat", "hls", "sdp"):
        assert "list" in failure.detail or "SDP" in failure.detail


@each_engine
@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"Gone, sorry.\n" * 50, "garbage"),
        (b"RIFF\x40\0\0\0WEBPVP8 " + bytes(52), "garbage"),
        (b"RIFF\xff\xff\0\0AVI LIST", "truncated"),
        (b"\0\0\0\x14ftypisom\0\0\0\0isom\0\0\0\x08moov", "truncated"),
        (b"\0\0\0\x08moov\0\0\x01\0mdat" + bytes(248), "truncated"),
    ],
)
def test_what_is_not_a_whole_film_is_called_by_its_name(tmp_path, content, cause, engine):
    path = tmp_path / "film.mp4"
    path.write_bytes(content)
    assert failure_of(path, engine).cause == cause


@each_engine
def test_a_name_with_a_pattern_is_one_file(neighbour, engine):
    pattern = neighbour.with_name("n%d.png")
    assert failure_of(pattern, engine).cause == "missing"
    pattern.write_bytes(b"no picture")
    assert failure_of(pattern, engine).cause == "garbage"


def boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    while start < end:
        size, name = struct.unpack_from(">I4s", data, start)
        yield name, start, start + size
        start += size


def with_reference(data: bytes, start: int, end: int, reference: bytes) -> bytes:
    """MP4 boxes in which every data reference is replaced."""
    out = b""
    for name, first, stop in boxes(data, start, end):
        if name in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
            out += box(name, with_reference(data, first + 8, stop, reference))
        elif name == b"dref":
            out += box(name, bytes(4) + struct.pack(">I", 1) + reference)
        else:
            out += data[first:stop]
    return out


@each_engine
@pytest.mark.parametrize("kind", [b"url ", b"alis"])
def test_a_film_that_keeps_its_media_elsewhere_becomes_no_sample(neighbour, kind, engine):
    data = neighbour.read_bytes()
    assert data.index(b"mdat") < data.index(b"moov")  # so that offsets stay right
    path = neighbour.with_name("film.mp4")
    here = with_reference(data, 0, len(data), box(kind, b"\0\0\0\1"))
    path.write_bytes(here)
    assert numbers_of(decode(path, engine)) == PLAIN
    path.write_bytes(with_reference(data, 0, len(data), box(kind, bytes(4) + b"neighbour.mp4")))
    failure = failure_of(path, engine)
    assert failure.cause == "garbage"
    assert "another file (neighbour.mp4)" in failure.detail
