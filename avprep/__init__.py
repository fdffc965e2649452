"""avprep: from a folder of videos to WebDataset shards.

The names below are imported when they are first used, so that `avprep --help` is instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from avprep.clips import Clip, discover_clips
    from avprep.decode import DecodeOptions, Media, decode_clip
    from avprep.errors import DecodeError, UserError, WorkFailed
    from avprep.labels import read_label_csv
    from avprep.manifest.model import iter_manifest, read_manifest, write_manifest
    from avprep.shards.build import build_shard_set
    from avprep.shards.format import read_dataset

__version__ = "0.1.0"

__all__ = [
    "Clip",
    "DecodeError",
    "DecodeOptions",
    "Media",
    "UserError",
    "WorkFailed",
    "build_shard_set",
    "decode_clip",
    "discover_clips",
    "iter_manifest",
    "read_dataset",
    "read_label_csv",
    "read_manifest",
    "write_manifest",
]

_HOMES = {
    "Clip": "avprep.clips",
    "DecodeError": "avprep.errors",
    "DecodeOptions": "avprep.decode",
    "Media": "avprep.decode",
    "UserError": "avprep.errors",
    "WorkFailed": "avprep.errors",
    "build_shard_set": "avprep.shards.build",
    "decode_clip": "avprep.decode",
    "discover_clips": "avprep.clips",
    "iter_manifest": "avprep.manifest.model",
    "read_dataset": "avprep.shards.format",
    "read_label_csv": "avprep.labels",
    "read_manifest": "avprep.manifest.model",
    "write_manifest": "avprep.manifest.model",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
