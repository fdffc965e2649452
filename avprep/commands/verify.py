"""A shard set is read again and every byte of it checked."""

from __future__ import annotations

from avprep.options import PoolOptions, VerifyOptions
from avprep.progress import OnProgress, Progress, ignore
from avprep.shards.verify import Findings, ShardCheck, discard_damaged, verify_shard_set


def verify(
    shards: str,
    options: VerifyOptions = VerifyOptions(),
    pool: PoolOptions = PoolOptions(),
    on_progress: OnProgress = ignore,
) -> Findings:
    """Compare every byte of a shard set with its dataset.json and indexes.

    Args:
        shards: folder or URL prefix.
        options: how thoroughly, and whether damage is discarded.
        pool: who does the work.
        on_progress: hears of shards done.

    Raises:
        UserError: no shard set there.
    """
    done = 0

    def show(check: ShardCheck, total: int) -> None:
        nonlocal done
        done += 1
        on_progress(Progress("shard", done, total))

    findings = verify_shard_set(shards, options.deep, pool, show)
    if options.discard:
        discard_damaged(shards, findings)
    return findings
