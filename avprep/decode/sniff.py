"""Which files are media: the demuxers that may open them, and what other files are."""

from __future__ import annotations

import re
from pathlib import Path

from avprep.decode.partly import open_media
from avprep.errors import DecodeError

# The demuxers that may open a file: those of formats that contain their media. Others follow names
# in the file (concat, hls, dash, imf, image2, sdp, vobsub, avisynth, mlv …), so that a list would
# become a copy of a neighbouring file, or of one elsewhere.
SELF_CONTAINED = (
    *("mov", "mp4", "m4a", "3gp", "3g2", "mj2", "matroska", "webm", "avi", "flv", "live_flv"),
    *("kux", "asf", "asf_o", "mpegts", "mpegtsraw", "mpeg", "mpegvideo", "m4v", "h261", "h263"),
    *("h264", "hevc", "vvc", "av1", "obu", "ivf", "vc1", "vc1test", "cavsvideo", "dirac", "mjpeg"),
    *("mpjpeg", "mjpeg_2000", "ogg", "mxf", "rm", "nut", "nuv", "nsv", "dv", "gxf", "wtv", "ty"),
    *("pva", "pmp", "lxf", "dhav", "swf", "smjpeg", "yuv4mpegpipe", "gif", "apng", "bink", "roq"),
    *("smk", "amr", "aac", "ac3", "eac3", "aiff", "ape", "au", "caf", "dts", "flac", "loas", "mp3"),
    *("mpc", "mpc8", "tta", "truehd", "w64", "wav", "wv", "dsf", "iamf", "oma", "qcp", "voc"),
)
# For every ffmpeg that opens a file, in either engine.
INPUT_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": ",".join(SELF_CONTAINED)}

# How files in the usual containers begin.
_SIGNATURES = {
    "mp4": rb".{4}(ftyp|moov|mdat|wide|free|skip|pnot|styp|moof|sidx)",  # MOV, too
    "matroska": rb"\x1a\x45\xdf\xa3|\x1f\x43\xb6\x75",  # WebM, too; or a cluster alone
    "avi": rb"RIFF.{4}AVI ",
    "ogg": rb"OggS",
    "flv": rb"FLV",
    "asf": rb"\x30\x26\xb2\x75",
    "mxf": rb"\x06\x0e\x2b\x34",
    "mpeg": rb"\0\0\x01\xba",
    "mpegts": rb"\x47.{187}\x47",
}
_LISTS = {
    b"ffconcat": "an ffmpeg list of files",
    b"#EXTM3U": "an HLS playlist",
    b"v=0": "a session description (SDP)",
    b"<": "an XML or HTML document, perhaps a DASH playlist or an error page",
}


def container_of(head: bytes) -> str:
    """The kind of container by a file's first 256 bytes; empty if it is none of the usual ones."""
    kinds = (kind for kind, start in _SIGNATURES.items() if re.match(start, head, re.DOTALL))
    return next(kinds, "")


def why_not_media(path: str | Path) -> DecodeError:
    """What to say of a file that no demuxer accepts."""
    with open_media(path) as file:
        head = file.read(1024)
    if container_of(head):
        lost = "its moov box" if head[4:8] in (b"styp", b"sidx", b"moof") else "its index"
        return DecodeError("truncated", f"{path}: cut short or damaged: {lost} is missing")
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for start, kind in _LISTS.items():
        if text.startswith(start):
            return DecodeError("garbage", f"{path}: not a media file but {kind}")
    return DecodeError("garbage", f"{path}: not a media file")
