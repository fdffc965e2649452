from .clips import Clip, discover_clips
from .decode import Media, decode_clip
from .demo_data import DemoData, make_demo_data
from .duplicates import Duplicates, find_duplicates
from .encode.process import ClipDecoder
from .errors import DecodeError, UserError, WorkFailed
from .extraction import ExtractReport, extract
from .fetch import Fetched, fetch_labels
from .filtering import ClassCount, Filtered, filter_clips
from .indexing import Indexed, index_tars
from .labels import LabelSet, label_set_from_names, read_label_csv
from .manifest.check import ManifestCheck, check_manifest
from .manifest.class_csvs import (
    LabelCheck,
    check_labels,
    write_folder_labels,
    write_vggsound_labels,
)
from .manifest.edit import (
    Chosen,
    Kept,
    ManifestPart,
    Merged,
    convert_manifest,
    merge_manifests,
    sample_manifest,
    select_manifest,
    split_manifest,
)
from .manifest.make import (
    make_audioset_manifest,
    make_folder_manifest,
    make_vggsound_manifest,
    make_vggsounder_manifest,
)
from .manifest.model import iter_manifest, read_manifest, write_manifest
from .manifest.paths import NewRoot
from .manifest.sources.folder import folder_manifest
from .manifest.sources.matched import ManifestSummary
from .measuring import Measured, measure
from .options import (
    AudioSetOptions,
    BuildOptions,
    CheckOptions,
    DecodeOptions,
    DemoDataOptions,
    Digest,
    DuplicateOptions,
    FetchOptions,
    FilterOptions,
    FolderOptions,
    IndexOptions,
    IsolationOptions,
    LabelSource,
    ManifestOutput,
    MergeOptions,
    Part,
    PerClassOptions,
    PieceOptions,
    PoolOptions,
    ReportOptions,
    SampleOptions,
    ShardSetOptions,
    Shares,
    Sources,
    SplitOptions,
    VerifyOptions,
    VGGSounderOptions,
    VGGSoundOptions,
)
from .packing import build_shards, forecast
from .pages.shard_report import ReportSummary, report
from .progress import OnProgress, Progress
from .shards.build import BuildReport, build_shard_set
from .shards.forecast import Estimate, Forecast
from .shards.format import DatasetInfo, read_dataset
from .shards.status import Status, status
from .shards.verify import Findings, verify
from .weights import Weights, weigh_clips

__version__: str

__all__ = [
    "AudioSetOptions",
    "BuildOptions",
    "BuildReport",
    "CheckOptions",
    "Chosen",
    "ClassCount",
    "Clip",
    "ClipDecoder",
    "DatasetInfo",
    "DecodeError",
    "DecodeOptions",
    "DemoData",
    "DemoDataOptions",
    "Digest",
    "DuplicateOptions",
    "Duplicates",
    "Estimate",
    "ExtractReport",
    "FetchOptions",
    "Fetched",
    "FilterOptions",
    "Filtered",
    "Findings",
    "FolderOptions",
    "Forecast",
    "IndexOptions",
    "Indexed",
    "IsolationOptions",
    "Kept",
    "LabelCheck",
    "LabelSet",
    "LabelSource",
    "ManifestCheck",
    "ManifestOutput",
    "ManifestPart",
    "ManifestSummary",
    "Measured",
    "Media",
    "MergeOptions",
    "Merged",
    "NewRoot",
    "OnProgress",
    "Part",
    "PerClassOptions",
    "PieceOptions",
    "PoolOptions",
    "Progress",
    "ReportOptions",
    "ReportSummary",
    "SampleOptions",
    "ShardSetOptions",
    "Shares",
    "Sources",
    "SplitOptions",
    "Status",
    "UserError",
    "VGGSoundOptions",
    "VGGSounderOptions",
    "VerifyOptions",
    "Weights",
    "WorkFailed",
    "build_shard_set",
    "build_shards",
    "check_labels",
    "check_manifest",
    "convert_manifest",
    "decode_clip",
    "discover_clips",
    "extract",
    "fetch_labels",
    "filter_clips",
    "find_duplicates",
    "folder_manifest",
    "forecast",
    "index_tars",
    "iter_manifest",
    "label_set_from_names",
    "make_audioset_manifest",
    "make_demo_data",
    "make_folder_manifest",
    "make_vggsound_manifest",
    "make_vggsounder_manifest",
    "measure",
    "merge_manifests",
    "read_dataset",
    "read_label_csv",
    "read_manifest",
    "report",
    "sample_manifest",
    "select_manifest",
    "split_manifest",
    "status",
    "verify",
    "weigh_clips",
    "write_folder_labels",
    "write_manifest",
    "write_vggsound_labels",
]
