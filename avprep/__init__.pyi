from .clips import Clip, discover_clips
from .commands.extract import extract
from .commands.report import write_report
from .commands.shard import build_shards
from .commands.verify import verify
from .decode import Media, decode_clip
from .demo_data import DemoData, make_demo_data
from .errors import DecodeError, UserError, WorkFailed
from .extraction import ExtractReport
from .isolation import IsolatedEncoder
from .labels import LabelSet, label_set_from_names, read_label_csv
from .manifest.folder import folder_manifest
from .manifest.model import iter_manifest, read_manifest, write_manifest
from .options import (
    BuildOptions,
    DecodeOptions,
    DemoDataOptions,
    IsolationOptions,
    PoolOptions,
    ReportOptions,
    SampleOptions,
    ShardSetOptions,
    VerifyOptions,
)
from .progress import OnProgress, Progress
from .report.shard_report import ReportSummary
from .shards.build import BuildReport, build_shard_set
from .shards.format import DatasetInfo, read_dataset
from .shards.verify import Findings

__version__: str

__all__ = [
    "BuildOptions",
    "BuildReport",
    "Clip",
    "DatasetInfo",
    "DecodeError",
    "DecodeOptions",
    "DemoData",
    "DemoDataOptions",
    "ExtractReport",
    "Findings",
    "IsolatedEncoder",
    "IsolationOptions",
    "LabelSet",
    "Media",
    "OnProgress",
    "PoolOptions",
    "Progress",
    "ReportOptions",
    "ReportSummary",
    "SampleOptions",
    "ShardSetOptions",
    "UserError",
    "VerifyOptions",
    "WorkFailed",
    "build_shard_set",
    "build_shards",
    "decode_clip",
    "discover_clips",
    "extract",
    "folder_manifest",
    "iter_manifest",
    "label_set_from_names",
    "make_demo_data",
    "read_dataset",
    "read_label_csv",
    "read_manifest",
    "verify",
    "write_manifest",
    "write_report",
]
