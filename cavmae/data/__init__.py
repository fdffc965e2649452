"""Streaming from shard sets."""

from cavmae.data.batch import Batch
from cavmae.data.loader import LoaderOptions, ShardLoader
from cavmae.data.mixture import Mixture, open_mixture
from cavmae.data.shardset import ShardSet, open_shards

__all__ = [
    "Batch",
    "LoaderOptions",
    "Mixture",
    "ShardLoader",
    "ShardSet",
    "open_mixture",
    "open_shards",
]
