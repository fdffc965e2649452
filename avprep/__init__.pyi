from .clips import Clip, discover_clips
from .decode import Media, decode_clip
from .encode.process import ClipDecoder
from .errors import DecodeError, UserError, WorkFailed
from .jobs import PoolOptions
from .labels import LabelSet, label_set_from_names, read_label_csv
from .manifest.folder import folder_manifest
from .manifest.model import iter_manifest, read_manifest, write_manifest
from .options import DecodeOptions, IsolationOptions, SampleOptions
from .shards.build import BuildReport, ShardSetOptions, build_shard_set
from .shards.format import DatasetInfo, read_dataset

__version__: str

__all__ = [
    "BuildReport",
    "Clip",
    "ClipDecoder",
    "DatasetInfo",
    "DecodeError",
    "DecodeOptions",
    "IsolationOptions",
    "LabelSet",
    "Media",
    "PoolOptions",
    "SampleOptions",
    "ShardSetOptions",
    "UserError",
    "WorkFailed",
    "build_shard_set",
    "decode_clip",
    "discover_clips",
    "folder_manifest",
    "iter_manifest",
    "label_set_from_names",
    "read_dataset",
    "read_label_csv",
    "read_manifest",
    "write_manifest",
]
