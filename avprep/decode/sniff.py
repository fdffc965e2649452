"""Which files are media: what may open them, and what others are."""

from __future__ import annotations

from pathlib import Path

from avprep.errors import DecodeError

# The demuxers that may open a file, of those that hold a film or sound themselves. Others open the
# files that a file names (concat, hls, dash, imf, image2, sdp, vobsub, avisynth, mlv …): then
# anybody's list would become a copy of a neighbour, or of a file elsewhere.
SELF_CONTAINED = (
    *("mov", "mp4", "m4a", "3gp", "3g2", "mj2", "matroska", "webm", "avi", "flv", "live_flv"),
    *("kux", "asf", "asf_o", "mpegts", "mpegtsraw", "mpeg", "mpegvideo", "m4v", "h261", "h263"),
    *("h264", "hevc", "vvc", "av1", "obu", "ivf", "vc1", "vc1test", "cavsvideo", "dirac", "mjpeg"),
    *("mpjpeg", "mjpeg_2000", "ogg", "mxf", "rm", "nut", "nuv", "nsv", "dv", "gxf", "wtv", "ty"),
    *("pva", "pmp", "lxf", "dhav", "swf", "smjpeg", "yuv4mpegpipe", "gif", "apng", "bink", "roq"),
    *("smk", "amr", "aac", "ac3", "eac3", "aiff", "ape", "au", "caf", "dts", "flac", "loas", "mp3"),
    *("mpc", "mpc8", "tta", "truehd", "w64", "wav", "wv", "dsf", "iamf", "oma", "qcp", "voc"),
)
# What every ffmpeg is given with a file, whichever of the engines it belongs to.
INPUT_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": ",".join(SELF_CONTAINED)}

# (offset, bytes) that open the containers people have.
_SIGNATURES = (
    (4, b"ftyp"),
    (4, b"moov"),
    (4, b"mdat"),
    (4, b"wide"),
    (4, b"styp"),
    (4, b"sidx"),
    (4, b"moof"),
    (0, b"\x1a\x45\xdf\xa3"),  # Matroska, WebM
    (0, b"\x1f\x43\xb6\x75"),  # a cluster of either
    (0, b"RIFF"),
    (0, b"OggS"),
    (0, b"FLV"),
    (0, b"\x30\x26\xb2\x75"),  # ASF, WMV
    (0, b"\x06\x0e\x2b\x34"),  # MXF
    (0, b"\x00\x00\x01\xba"),  # MPEG program stream
    (0, b"\x47"),  # MPEG transport stream
)
_LISTS = {
    b"ffconcat": "an ffmpeg list of files",
    b"#EXTM3U": "an HLS playlist",
    b"v=0": "a session description (SDP)",
    b"<": "an XML or HTML document, perhaps a DASH playlist or an error page",
}


def why_not_media(path: str | Path) -> DecodeError:
    """What to say of a file that no demuxer takes."""
    with open(path, "rb") as file:
        head = file.read(1024)
    if any(head[offset:].startswith(magic) for offset, magic in _SIGNATURES):
        lost = "its moov box" if head[4:8] in (b"styp", b"sidx", b"moof") else "its index"
        return DecodeError("truncated", f"{path}: cut short or damaged: {lost} is missing")
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for start, kind in _LISTS.items():
        if text.startswith(start):
            return DecodeError("garbage", f"{path}: not a media file but {kind}")
    return DecodeError("garbage", f"{path}: not a media file")
