"""Streaming from shard sets."""

from cavmae.data.batch import Batch
from cavmae.data.loader import LoaderOptions, ShardLoader
from cavmae.data.shardset import ShardSet, open_shards

__all__ = ["Batch", "LoaderOptions", "ShardLoader", "ShardSet", "open_shards"]
