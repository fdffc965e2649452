"""What packing a manifest would take."""

from __future__ import annotations

from pathlib import Path

from avprep.manifest.model import read_manifest
from avprep.options import BuildOptions, PoolOptions, ShardSetOptions
from avprep.packing import label_set_of
from avprep.progress import OnProgress, ignore
from avprep.shards.build import planned_task
from avprep.shards.forecast import Forecast, forecast_shard_set


def forecast(
    manifest: str | Path,
    out: str,
    labels: str | Path | None = None,
    options: ShardSetOptions = ShardSetOptions(),
    which: BuildOptions = BuildOptions(),
    pool: PoolOptions = PoolOptions(),
    on_progress: OnProgress = ignore,
) -> Forecast:
    """Say what `build_shards` would take, from decoding a sample of the clips; write nothing.

    Args: as of `build_shards`; `on_progress` hears of the sample's clips.

    Raises:
        UserError: `build_shards` would refuse the same arguments.
    """
    clips = read_manifest(Path(manifest))
    label_set, _ = label_set_of(clips, Path(manifest), labels)
    task = planned_task(clips, label_set, out, options, which)
    return forecast_shard_set(task, pool, on_progress)
