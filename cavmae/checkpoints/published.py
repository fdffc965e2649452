"""The published `.pth` files: tensors by name and nothing else, so that shapes tell the size."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from avprep import storage
from avprep.errors import UserError
from cavmae.model import CAVMAE, CAVMAEClassifier, ModelConfig

HEAD = "mlp_head.1.weight"
WRAPPERS = re.compile(r"^(module\.|_orig_mod\.)+")  # DataParallel, DDP; torch.compile
HEAD_DIM = 64
_MEL_BINS = 128


def save_published(
    path: Path, model: CAVMAE | CAVMAEClassifier, module_prefix: bool = True
) -> None:
    """Write the weights as the published code does: a `.pth` of tensors by name.

    Args:
        path: the file.
        model: of a size that the shapes of its weights tell, since a `.pth` holds nothing else.
        module_prefix: begin each name with `module.`, as published files do.

    Raises:
        UserError: the file could not be read back: its shapes would tell another size.
    """
    _check_tells_its_size(path, model)
    prefix = "module." if module_prefix else ""
    tensors = {f"{prefix}{name}": value.detach().cpu() for name, value in state_of(model).items()}
    with storage.replacing(path) as file:
        torch.save(tensors, file)


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """A model's state, whatever wraps it (DDP, torch.compile)."""
    state = model.state_dict()
    return {WRAPPERS.sub("", name): value for name, value in state.items()}


def config_of(weights: Mapping[str, Tensor], file: Path) -> ModelConfig:
    """The size of a published model, read off the shapes of its weights.

    Raises:
        UserError: the names are not CAV-MAE's.
    """
    try:
        embed_dim, _, patch_size, _ = weights["patch_embed_v.proj.weight"].shape
        places = {stream: weights[f"pos_embed_{stream}"].shape[1] for stream in "av"}
        hidden = weights["blocks_u.0.mlp.fc1.weight"].shape[0]
        sizes = {
            "embed_dim": embed_dim,
            "depth": block_count(weights, "blocks_a") + block_count(weights, "blocks_u"),
            "modality_depth": block_count(weights, "blocks_a"),
            "num_heads": max(embed_dim // HEAD_DIM, 1),
            "mlp_ratio": hidden / embed_dim,
            "patch_size": patch_size,
            "image_size": round(places["v"] ** 0.5) * patch_size,
            "audio_frames": places["a"] // (_MEL_BINS // patch_size) * patch_size,
            "mel_bins": _MEL_BINS,
            "trainable_positions": HEAD in weights,
        }
        if decoder_depth := block_count(weights, "decoder_blocks"):
            sizes |= {
                "decoder_dim": weights["decoder_embed.weight"].shape[0],
                "decoder_depth": decoder_depth,
            }
    except KeyError as error:
        raise UserError(
            f"{file}: not a CAV-MAE checkpoint, it has no {error.args[0]}. Its first tensors are "
            f"{', '.join(list(weights)[:3]) or 'none'}."
        ) from None
    except (ValueError, IndexError, ZeroDivisionError):
        raise UserError(
            f"{file}: not a CAV-MAE checkpoint, its tensors have unexpected shapes."
        ) from None
    try:
        return ModelConfig(**sizes)
    except UserError as error:
        raise UserError(f"{file}: its weights have an impossible size: {error}") from error


def block_count(weights: Mapping[str, Tensor], blocks: str) -> int:
    """How many blocks of a name there are."""
    return len({name.split(".")[1] for name in weights if name.startswith(f"{blocks}.")})


def _check_tells_its_size(path: Path, model: CAVMAE | CAVMAEClassifier) -> None:
    """A `.pth` tells its size by shapes alone, and those say nothing of heads and objective."""
    if model.config.objective != "cav-mae":
        raise UserError(
            f"{path}: a .pth cannot hold this model, since nothing in it would state the objective "
            f"{model.config.objective}. Keep it as .safetensors."
        )
    told = dataclasses.asdict(config_of(state_of(model), path))
    for name, value in dataclasses.asdict(model.config).items():
        is_used = isinstance(model, CAVMAE) or not name.startswith("decoder_")
        if is_used and name != "trainable_positions" and told[name] != value:
            raise UserError(
                f"{path}: a .pth cannot hold this model, it would be read back with {name} "
                f"{told[name]}, not {value}. Keep it as .safetensors."
            )
