"""Weights on disk: safetensors with the model's size inside, and the published `.pth` files."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from avprep import storage
from avprep.errors import UserError
from avprep.labels import LabelSet
from cavmae.checkpoints.difference import compare
from cavmae.checkpoints.hub import download, is_hub_url
from cavmae.checkpoints.published import HEAD, WRAPPERS, config_of, save_published, state_of
from cavmae.checkpoints.stored import copy_of_stored
from cavmae.checkpoints.usage import (
    STORE_LABELS,
    assumed_classes,
    check_metadata,
    other_classes,
    stored_labels,
)
from cavmae.model import CAVMAE, CAVMAEClassifier, ModelConfig
from cavmae.model.encoder import Encoder

__all__ = [
    "LoadReport",
    "config_of",
    "init_from",
    "load_checkpoint",
    "model_of",
    "read_metadata",
    "read_weights",
    "reason_of",
    "save_model",
    "save_published",
    "unused_names",
    "weights_file",
]

_FORMAT = "cavmae"
_RUN_FILES = ("best.safetensors", "model.safetensors")  # of a run directory, by preference
_OWN = frozenset(("format", "kind", "config", "images"))  # metadata that a model itself implies
_NESTS = ("model", "state_dict")  # where training scripts put the weights beside other things


@dataclass(frozen=True)
class LoadReport:
    """What `init_from` did with each tensor."""

    loaded: int
    missing: tuple[str, ...]  # the model has them, the file does not: left as they were
    unexpected: tuple[str, ...]  # the file has them, the model does not: not used
    notes: tuple[str, ...] = ()  # in words, what happened to a head whose classes are in doubt


def save_model(
    path: str | Path,
    model: CAVMAE | CAVMAEClassifier,
    metadata: Mapping[str, str] | None = None,
    weights: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a model's weights as safetensors, completely or not at all.

    Args:
        path: the file, or its URL in an object store.
        model: its config and kind are stored with the weights.
        metadata: more strings to store, such as the labels; None for the model's own.
        weights: tensors to store in place of the model's own.
    """
    described = {
        "format": _FORMAT,
        "kind": "classifier" if isinstance(model, CAVMAEClassifier) else "pretrain",
        "config": model.config.to_json(),
        "images": str(int("image" in model.modalities)),
        **(model.metadata if metadata is None else metadata),
    }
    state = state_of(model) if weights is None else weights
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    with storage.replacing(path) as file:
        try:
            save_file(tensors, file.path, described)
        except safetensors.SafetensorError as error:
            code = re.search(r"os error (\d+)", str(error))  # only its text tells of a full disk
            if code is None:
                raise
            with storage.writing_to(path):
                raise OSError(int(code[1]), os.strerror(int(code[1]))) from error


def load_checkpoint(path: str | Path) -> CAVMAE | CAVMAEClassifier:
    """Build the model that a checkpoint holds.

    Args:
        path: our safetensors, a run directory (its best weights, else its last),
            `hf://org/name[@revision]`, or a published `.pth`. The size of a published model
            follows from its shapes, with heads of 64.

    Raises:
        UserError: no such file, not a checkpoint, or tensors that are missing, unexpected or of the
            wrong shape.
        WorkFailed: the hub does not answer.
    """
    file = weights_file(path)
    weights, metadata = read_weights(file)
    return model_of(weights, metadata, file)


def model_of(
    weights: Mapping[str, Tensor], metadata: Mapping[str, str], file: Path
) -> CAVMAE | CAVMAEClassifier:
    """Build the model that what `read_weights` gave describes.

    Raises:
        UserError: not a checkpoint, or tensors missing, unexpected or misshapen.
    """
    with torch.device("meta"):  # sizes only: nothing is made that the file does not fill
        model = _build(weights, metadata, file)
    unused = unused_names(weights)
    used = {name: value for name, value in weights.items() if name not in unused}
    if difference := compare(model.state_dict(), used):
        raise UserError(f"{file}: does not fit {type(model).__name__}:", *difference.lines())
    whole = {name: value.float().contiguous() for name, value in used.items()}
    model.load_state_dict(whole, assign=True)
    model.metadata = {name: value for name, value in metadata.items() if name not in _OWN}
    return model


def unused_names(weights: Iterable[str]) -> list[str]:
    """The class tokens among a file's names: no CAV-MAE uses them, but published files of initial
    weights hold them."""
    return sorted(name for name in weights if name.startswith("cls_token"))


def init_from(
    model: Encoder, path: str | Path, labels: LabelSet | None = None, where: str = ""
) -> LoadReport:
    """Copy a checkpoint's weights into a model of the same size, in place.

    A classifier takes the encoder of a pretrained model and keeps its new head; the decoder is
    not used. A head of other classes is not used either.

    Args:
        model: to fill.
        path: a checkpoint or run.
        labels: the classes of the model's head, if it has one.
        where: they are from, for the report.

    Raises:
        UserError: nothing there, or a part of the encoder is missing or has another shape.
    """
    file = weights_file(path)
    weights, metadata = read_weights(file)
    own = model.state_dict()
    head = [name for name in weights if name.startswith("mlp_head.")]
    fits = all(name in own and own[name].shape == weights[name].shape for name in head)
    notes: tuple[str, ...] = ()
    if head and fits and labels is not None:
        fits, notes = _head_for(labels, where, metadata, file)
    if not fits:
        weights = {name: value for name, value in weights.items() if name not in head}
    difference = compare(own, weights)
    missing = {
        name: shape
        for name, shape in difference.missing.items()
        if not name.startswith(("mlp_head.", "decoder_", "mask_token"))
    }
    if difference.misshapen or missing:
        wrong = dataclasses.replace(difference, unexpected={}, missing=missing)
        raise UserError(
            f"{file}: does not fit this model: {wrong.line()}. Give a whole checkpoint of its size."
        )
    usable = {name: value for name, value in weights.items() if name in own}
    model.load_state_dict(usable, strict=False)
    return LoadReport(
        len(usable),
        tuple(name for name in own if name not in usable),
        tuple(name for name in weights if name not in own),
        notes,
    )


def _head_for(
    labels: LabelSet, where: str, metadata: Mapping[str, str], file: Path
) -> tuple[bool, tuple[str, ...]]:
    """Whether a head with as many classes is one of these classes, and what to say about it."""
    stored = stored_labels(metadata)
    if stored is None:
        return True, (f"{assumed_classes(file, labels, where)} {STORE_LABELS}",)
    if odd := other_classes(stored, labels):
        note = f"{file}: its head was trained with another label set than that of {where}, "
        note += f"so the head is initialised again: {odd}."
        return False, (note,)
    return True, ()


def weights_file(path: str | Path) -> Path:
    """The file of weights that a checkpoint means: itself, the best one of a run directory, or a
    copy of that on the hub or in an object store.

    Raises:
        UserError: nothing there.
        WorkFailed: the hub or the store does not answer.
    """
    if is_hub_url(path):
        return download(str(path))
    if storage.is_url(path):
        return copy_of_stored(str(path), _RUN_FILES)
    path = Path(path)
    if path.is_dir():
        for name in _RUN_FILES:
            if (path / name).is_file():
                return path / name
        raise UserError(
            f"{path}: holds no {' or '.join(_RUN_FILES)}. Give a finished run or a checkpoint file."
        )
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint.")
    return path


def read_metadata(path: str | Path) -> dict[str, str]:
    """The strings stored with the weights; empty for a published file.

    Raises:
        UserError: nothing there, or not a file of weights.
    """
    file = weights_file(path)
    if file.suffix != ".safetensors":
        return {}
    with _opened(file) as reader:
        return check_metadata(file, reader.metadata() or {})


def read_weights(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name, without any `module.` prefix, and metadata. Never runs code of the file.

    Raises:
        UserError: not a file of weights, or weights that are not numbers.
    """
    weights, metadata = _stored_weights(file)
    for name, value in weights.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise UserError(
                f"{file}: {name} holds values that are not finite, so that all results would be "
                "NaN. Take an earlier checkpoint."
            )
    return weights, metadata


def _stored_weights(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if file.suffix == ".safetensors":
        with _opened(file) as reader:
            metadata, names = check_metadata(file, reader.metadata() or {}), reader.keys()
            return {name: reader.get_tensor(name) for name in names}, metadata
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged or hostile file raises is anybody's guess
        raise UserError(
            f"{file}: not a plain file of weights ({reason_of(error)}). Files that hold code "
            "are refused."
        ) from error
    return _named_tensors(loaded, file), {}


@contextmanager
def _opened(file: Path) -> Iterator[safetensors.safe_open]:
    try:
        with safetensors.safe_open(file, "pt") as reader:
            yield reader
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(f"{file}: not a safetensors file ({error}).") from error


def reason_of(error: Exception) -> str:
    """What an error says in one line; its type where it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def _named_tensors(loaded: object, file: Path) -> dict[str, Tensor]:
    """The weights in what a `.pth` holds, by their names in an unwrapped model."""
    if isinstance(loaded, Mapping):
        nested = [loaded[key] for key in _NESTS if isinstance(loaded.get(key), Mapping)]
        loaded = nested[0] if nested else loaded
    if not isinstance(loaded, Mapping):
        raise UserError(f"{file}: expected tensors by name, found a {type(loaded).__name__}.")
    weights: dict[str, Tensor] = {}
    for key, value in loaded.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise UserError(
                f"{file}: expected tensors by name, found {key!r} with a {type(value).__name__}."
            )
        name = WRAPPERS.sub("", key)
        if name in weights:
            raise UserError(f"{file}: holds {name} twice, with and without a prefix.")
        weights[name] = value
    return weights


def _build(
    weights: Mapping[str, Tensor], metadata: Mapping[str, str], file: Path
) -> CAVMAE | CAVMAEClassifier:
    if metadata.get("format") == _FORMAT:
        try:
            config = ModelConfig.from_json(metadata.get("config", ""))
        except UserError as error:
            raise UserError(f"{file}: {error}") from error
        is_classifier = metadata.get("kind") == "classifier"
    else:
        config = config_of(weights, file)
        is_classifier = HEAD in weights
    if not is_classifier:
        return CAVMAE(config)
    classifier = CAVMAEClassifier(config, len(weights[HEAD]) if HEAD in weights else 1)
    if metadata.get("images") == "0" and "image" in classifier.modalities:
        classifier.drop_images()
    return classifier
