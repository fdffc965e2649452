"""Training state on disk: a folder per checkpoint, whole or absent."""

from __future__ import annotations

import os
import pickle
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avprep import storage
from avprep.errors import UserError, out_of_memory
from cavmae.checkpoints import read_weights, reason_of, save_model
from cavmae.model import CAVMAE, CAVMAEClassifier
from cavmae.train.parallel import load_whole_weights

_NAME = re.compile(r"step-\d{8}")
_REPLACED = re.compile(rf"\.old-({_NAME.pattern})")  # by one of the same step, in a moment
FILES = _WEIGHTS, _STATE = "model.safetensors", "state.pt"  # in the order of writing


def save_checkpoint(
    folder: Path,
    step: int,
    model: CAVMAE | CAVMAEClassifier,
    state: dict[str, Any],
    keep: int,
    weights: Mapping[str, Tensor] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write `folder/step-NNNNNNNN` under a temporary name, rename it, drop the oldest ones.

    One process at a time may write to a folder: what an earlier one left unfinished is deleted.

    Args:
        folder: RUN/checkpoints.
        step: names the checkpoint; one of that name is replaced.
        model: its weights go to model.safetensors.
        state: everything else; tensors and plain Python values.
        keep: how many checkpoints stay.
        weights: whole tensors in place of the model's own, where it is sharded.
        metadata: stored with the weights.

    Raises:
        OSError, UserError, WorkFailed: it could not be written, and nothing of it is left; older
            ones are untouched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _tidy(folder)
    target = folder / f"step-{step:08d}"
    temporary = storage.temporary_in(folder)
    temporary.mkdir()
    try:
        save_model(temporary / _WEIGHTS, model, metadata, weights)
        _write_state(temporary / _STATE, state)
        replaced = folder / f".old-{target.name}"
        if target.exists():
            os.replace(target, replaced)
        os.replace(temporary, target)
        shutil.rmtree(replaced, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for old in list_checkpoints(folder)[:-keep]:
        # Deleting takes a while, in which it must not look like a checkpoint.
        unwanted = storage.temporary_in(folder)
        os.replace(old, unwanted)
        shutil.rmtree(unwanted, ignore_errors=True)
    return target


def _tidy(folder: Path) -> None:
    """Clean up after a writer that was killed."""
    for path in list(folder.iterdir()):
        replaced = _REPLACED.fullmatch(path.name)
        if replaced and not (folder / replaced[1]).exists():
            os.replace(path, folder / replaced[1])
        elif replaced or storage.is_temporary(path.name):
            shutil.rmtree(path, ignore_errors=True)


def _write_state(path: Path, state: dict[str, Any]) -> None:
    with path.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:
            # PyTorch's writer hides a full disk behind an error of its own.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
        file.flush()
        os.fsync(file.fileno())


def is_checkpoint_name(name: str) -> bool:
    """Whether a folder of this name is a checkpoint."""
    return bool(_NAME.fullmatch(name))


def list_checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints of a run, oldest first."""
    if not folder.is_dir():
        return []
    found = {}
    for path in sorted(folder.iterdir()):  # the replaced ones first
        if replaced := _REPLACED.fullmatch(path.name):
            found[replaced[1]] = path  # all there is, if the writer was killed before the next name
        elif _NAME.fullmatch(path.name):
            found[path.name] = path
    return [found[name] for name in sorted(found)]


def load_state(checkpoint: Path, model: CAVMAE | CAVMAEClassifier) -> dict[str, Any]:
    """Put a checkpoint's weights into the model and return the rest of its state.

    Raises:
        UserError: not a checkpoint of such a model.
    """
    weights, _ = read_weights(checkpoint / _WEIGHTS)
    try:
        load_whole_weights(model, weights)
        return torch.load(checkpoint / _STATE, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
        if out_of_memory(error):  # which is no reason to delete it
            raise
        raise UserError(
            f"{checkpoint}: cannot resume from this checkpoint ({reason_of(error)}). Delete it to "
            "resume from the previous one, or start again in another --out."
        ) from error
