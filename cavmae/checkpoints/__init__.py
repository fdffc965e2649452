"""Weights on disk: safetensors with the model's size inside, and the published `.pth` files."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from avprep import storage
from avprep.errors import UserError
from cavmae.model import CAVMAE, CAVMAEClassifier, ModelConfig
from cavmae.model.encoder import Encoder

__all__ = [
    "LoadReport",
    "init_from",
    "load_checkpoint",
    "read_metadata",
    "read_weights",
    "save_model",
    "save_published",
    "weights_file",
]

_FORMAT = "cavmae"
_RUN_FILES = ("best.safetensors", "model.safetensors")  # of a run directory, by preference
_PUBLISHED_HEAD_DIM = 64
_NAMES_SHOWN = 2


@dataclass(frozen=True)
class LoadReport:
    """What `init_from` did with each tensor."""

    loaded: int
    missing: tuple[str, ...]  # the model has them, the file does not: left as they were
    unexpected: tuple[str, ...]  # the file has them, the model does not: not used


def save_model(
    path: Path,
    model: CAVMAE | CAVMAEClassifier,
    metadata: Mapping[str, str] | None = None,
    weights: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a model's weights as safetensors, whole or not at all.

    Args:
        path: the file.
        model: its config, kind and number of classes are stored with the weights.
        metadata: further strings to store, such as the labels.
        weights: tensors to store in place of the model's own.
    """
    described = {
        "format": _FORMAT,
        "kind": "classifier" if isinstance(model, CAVMAEClassifier) else "pretrain",
        "config": model.config.to_json(),
        "num_classes": str(getattr(model, "num_classes", 0)),
        "images": str(int(model.has_images)),
        **(metadata or {}),
    }
    state = state_of(model) if weights is None else weights
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    storage.write_atomic(path, to_safetensors(tensors, described))


def save_published(
    path: Path, model: CAVMAE | CAVMAEClassifier, module_prefix: bool = True
) -> None:
    """Write the weights as the published code does: a `.pth` of tensors by name."""
    prefix = "module." if module_prefix else ""
    tensors = {f"{prefix}{name}": value.detach().cpu() for name, value in state_of(model).items()}
    with storage.replacing(path) as file:
        torch.save(tensors, file)


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """A model's state, whatever wraps it (DDP, torch.compile)."""
    state = model.state_dict()
    return {re.sub(r"^(module\.|_orig_mod\.)+", "", name): value for name, value in state.items()}


def load_checkpoint(path: str | Path) -> CAVMAE | CAVMAEClassifier:
    """Build the model that a checkpoint holds.

    Args:
        path: our safetensors, a run directory (its best weights, else its last), or a published
            `.pth`. The size of a published model is read off its shapes, with heads of 64.

    Raises:
        UserError: nothing there, not a checkpoint, or tensors missing, unexpected or misshapen.
    """
    file = weights_file(path)
    weights, metadata = read_weights(file)
    model = _build(weights, metadata, file)
    _check(model, weights, file)
    model.load_state_dict(weights)
    return model


def init_from(model: Encoder, path: str | Path) -> LoadReport:
    """Copy a checkpoint's weights into a model of the same size, in place.

    A classifier takes the encoder of a pretrained model and keeps its new head; the decoder is
    not used. A head of another number of classes is not used either.

    Raises:
        UserError: nothing there, or the encoder has another shape.
    """
    file = weights_file(path)
    weights, _ = read_weights(file)
    own = model.state_dict()
    head = [name for name in weights if name.startswith("mlp_head.")]
    if any(name not in own or own[name].shape != weights[name].shape for name in head):
        weights = {name: value for name, value in weights.items() if name not in head}
    wrong = _misshapen(own, weights)
    missing = [name for name in own if name not in weights and not name.startswith("mlp_head.")]
    if wrong or len(missing) == len([name for name in own if not name.startswith("mlp_head.")]):
        raise UserError(
            _difference(file, "this model", wrong, missing if not wrong else [], [])
            + " Choose the --model size that the checkpoint was trained with."
        )
    usable = {name: value for name, value in weights.items() if name in own}
    model.load_state_dict(usable, strict=False)
    return LoadReport(
        len(usable),
        tuple(name for name in own if name not in usable),
        tuple(name for name in weights if name not in own),
    )


def weights_file(path: str | Path) -> Path:
    """The file of weights that a path means: itself, or the best one of a run directory.

    Raises:
        UserError: nothing there.
    """
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
    """The strings stored with the weights; empty for a published file."""
    return read_weights(weights_file(path), metadata_only=True)[1]


def read_weights(
    file: Path, metadata_only: bool = False
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name, without any `module.` prefix, and metadata. Never runs code of the file.

    Raises:
        UserError: not a file of weights.
    """
    if file.suffix == ".safetensors":
        try:
            with safetensors.safe_open(file, "pt") as reader:
                metadata = reader.metadata() or {}
                names = () if metadata_only else reader.keys()
                return {name: reader.get_tensor(name) for name in names}, metadata
        except (safetensors.SafetensorError, OSError) as error:
            raise UserError(f"{file}: not a safetensors file ({error}).") from error
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{file}: not a plain file of weights ({reason}). Files that hold code are refused."
        ) from error
    if not isinstance(loaded, Mapping) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise UserError(f"{file}: expected a mapping from names to tensors.")
    return {name.removeprefix("module."): value for name, value in loaded.items()}, {}


def _build(
    weights: Mapping[str, Tensor], metadata: Mapping[str, str], file: Path
) -> CAVMAE | CAVMAEClassifier:
    if metadata.get("format") == _FORMAT:
        config = ModelConfig.from_json(metadata["config"])
        is_classifier = metadata["kind"] == "classifier"
    else:
        config = config_of(weights, file)
        is_classifier = "mlp_head.1.weight" in weights
    if not is_classifier:
        return CAVMAE(config)
    classifier = CAVMAEClassifier(config, len(weights["mlp_head.1.weight"]))
    if metadata.get("images") == "0":
        classifier.drop_images()
    return classifier


def config_of(weights: Mapping[str, Tensor], file: Path) -> ModelConfig:
    """The size of a published model, read off the shapes of its weights.

    Raises:
        UserError: the names are not CAV-MAE's.
    """
    try:
        embed_dim, _, patch_size, _ = weights["patch_embed_v.proj.weight"].shape
        positions = {stream: weights[f"pos_embed_{stream}"].shape[1] for stream in "av"}
    except (KeyError, ValueError):
        raise UserError(
            f"{file}: not a CAV-MAE checkpoint, it has no patch_embed_v.proj.weight. Its first "
            f"names are {', '.join(list(weights)[:3]) or 'none'}."
        ) from None
    own, shared, decoder = (
        len({name.split(".")[1] for name in weights if name.startswith(f"{blocks}.")})
        for blocks in ("blocks_a", "blocks_u", "decoder_blocks")
    )
    mel_bins = 128
    hidden = weights["blocks_u.0.mlp.fc1.weight"].shape[0]
    sizes = {
        "embed_dim": embed_dim,
        "depth": own + shared,
        "modality_depth": own,
        "num_heads": max(embed_dim // _PUBLISHED_HEAD_DIM, 1),
        "mlp_ratio": hidden / embed_dim,
        "patch_size": patch_size,
        "image_size": round(positions["v"] ** 0.5) * patch_size,
        "audio_frames": positions["a"] // (mel_bins // patch_size) * patch_size,
        "mel_bins": mel_bins,
        "trainable_positions": "mlp_head.1.weight" in weights,
    }
    if decoder:
        sizes |= {
            "decoder_dim": weights["decoder_embed.weight"].shape[0],
            "decoder_depth": decoder,
        }
    return ModelConfig(**sizes)


def _check(model: nn.Module, weights: Mapping[str, Tensor], file: Path) -> None:
    own = model.state_dict()
    wrong = _misshapen(own, weights)
    missing = [name for name in own if name not in weights]
    unexpected = [name for name in weights if name not in own]
    if wrong or missing or unexpected:
        raise UserError(_difference(file, type(model).__name__, wrong, missing, unexpected))


def _misshapen(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> list[str]:
    return [
        f"{name} {list(weights[name].shape)}, not {list(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]


def _difference(
    file: Path, model: str, wrong: list[str], missing: list[str], unexpected: list[str]
) -> str:
    parts = []
    for title, names in (
        ("of another shape", wrong),
        ("missing", missing),
        ("unexpected", unexpected),
    ):
        if names:
            shown = ", ".join(names[:_NAMES_SHOWN]) + (", …" if len(names) > _NAMES_SHOWN else "")
            parts.append(f"{len(names)} {title} ({shown})")
    return f"{file}: does not fit {model}: tensors {'; '.join(parts)}."
