"""The mean of several checkpoints' weights, as the paper's finetuned models are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from avprep import storage
from avprep.errors import UserError
from cavmae.checkpoints import (
    load_checkpoint,
    read_metadata,
    read_weights,
    save_model,
    weights_file,
)


@dataclass(frozen=True)
class Averaged:
    """What was written: a file, the mean of this many checkpoints."""

    file: Path
    count: int


def average(sources: Sequence[str | Path], target: str | Path) -> Averaged:
    """Write the unweighted mean of the checkpoints, with the metadata of the first.

    Args:
        sources: files, runs, or checkpoint folders of a run.
        target: a .safetensors file.

    Raises:
        UserError: no source, or models that differ in kind, size, input or label set.
    """
    target = Path(target)
    if not sources:
        raise UserError(f"{target}: give at least one checkpoint to average.")
    if target.suffix != ".safetensors":
        raise UserError(f"{target}: the result is a .safetensors file; name it so.")
    storage.make_folder(target.parent)
    files = [weights_file(source) for source in sources]
    model = load_checkpoint(files[0])
    metadata = read_metadata(files[0])
    sums = {name: value.double() for name, value in model.state_dict().items()}
    for file in files[1:]:
        theirs = read_metadata(file)
        if differing := sorted(k for k in {*metadata, *theirs} if metadata.get(k) != theirs.get(k)):
            raise UserError(
                f"{file}: cannot be averaged with {files[0]}, they differ in "
                f"{', '.join(differing)}."
            )
        weights, _ = read_weights(file)
        shapes = {name: value.shape for name, value in weights.items()}
        if shapes != {name: value.shape for name, value in sums.items()}:
            raise UserError(f"{file}: cannot be averaged with {files[0]}: other tensors.")
        for name, value in weights.items():
            sums[name] += value
    own = model.state_dict()
    mean = {name: (value / len(files)).to(own[name].dtype) for name, value in sums.items()}
    with torch.no_grad():
        model.load_state_dict(mean)
    save_model(target, model, metadata)
    return Averaged(target, len(files))
