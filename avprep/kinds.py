"""Which files are clips, by their suffix."""

from __future__ import annotations

from typing import Literal

FileKind = Literal["video", "audio", "image"]
VIDEO_SUFFIXES = frozenset(
    (
        *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg"),
        *(".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv"),
    )
)
SUFFIXES: dict[FileKind, frozenset[str]] = {
    "video": VIDEO_SUFFIXES,
    "audio": frozenset(
        (
            *(".aac", ".ac3", ".aif", ".aifc", ".aiff", ".amr", ".ape", ".au", ".caf", ".flac"),
            *(".m4a", ".m4b", ".mp2", ".mp3", ".oga", ".ogg", ".opus", ".wav", ".wave", ".wma"),
            ".wv",
        )
    ),
    "image": frozenset((".jpeg", ".jpg", ".png")),
}
PLURALS: dict[FileKind, str] = {"video": "videos", "audio": "audio files", "image": "pictures"}
