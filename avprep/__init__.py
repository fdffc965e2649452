"""avprep: from a folder of videos to WebDataset shards."""

__version__ = "0.1.0"
