"""Stands before PyTorch on the path of processes that do without, as `avprep` can."""

raise ModuleNotFoundError("left out: webdataset imports it where it is, which takes seconds")
