"""Initial weights of CAV-MAE from a vision MAE (ViT with decoder, timm-style names)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from avprep.errors import UserError
from cavmae.model import CAVMAE, ModelConfig

_SHARED_BLOCKS = 1  # the last one; the others become both modalities' own
_NORMS = ("norm1", "norm2")


def from_vision_mae(weights: Mapping[str, Tensor], where: str) -> CAVMAE:
    """A CAV-MAE that starts from a vision MAE (paper, section 3.3).

    Encoder blocks but the last go to both modalities, the last to the shared block with its norms
    copied to all three streams; the image patch embedding is summed over colours for audio; the
    decoder is taken over, its prediction head cut to one channel for audio. Class tokens are
    dropped and audio positions stay sine-cosine.

    Args:
        weights: the vision MAE's tensors.
        where: names the file in errors.

    Raises:
        UserError: a tensor is missing.
    """
    try:
        return _convert(weights)
    except KeyError as error:
        raise UserError(
            f"{where}: not a vision MAE with decoder, it has no {error.args[0]!r}."
        ) from None
    except RuntimeError as error:
        raise UserError(f"{where}: does not fit: {str(error).splitlines()[-1].strip()}") from error


def _convert(weights: Mapping[str, Tensor]) -> CAVMAE:
    depth, decoder_depth = (_count(weights, name) for name in ("blocks", "decoder_blocks"))
    if not depth:
        raise KeyError("blocks.0.norm1.weight")
    patch = weights["patch_embed.proj.weight"]
    grid = round((weights["pos_embed"].shape[1] - 1) ** 0.5)
    decoder_dim = weights["decoder_embed.weight"].shape[0]
    config = ModelConfig(
        embed_dim=patch.shape[0],
        depth=depth,
        modality_depth=depth - _SHARED_BLOCKS,
        num_heads=max(patch.shape[0] // 64, 1),
        decoder_dim=decoder_dim,
        decoder_depth=decoder_depth,
        decoder_heads=16 if decoder_dim % 16 == 0 else 1,
        patch_size=patch.shape[-1],
        image_size=grid * patch.shape[-1],
    )
    model = CAVMAE(config)
    state = model.state_dict()
    own = config.modality_depth
    for name, value in weights.items():
        if name.startswith("blocks."):
            number, _, rest = name.removeprefix("blocks.").partition(".")
            if int(number) < own:
                targets = [f"blocks_a.{number}.{rest}", f"blocks_v.{number}.{rest}"]
            else:
                targets = [f"blocks_u.{int(number) - own}.{rest}"]
            for target in targets:
                for stream in _streams(target):
                    state[stream] = value
        elif name.startswith("decoder_blocks."):
            for stream in _streams(name):
                state[stream] = value
    for part in ("weight", "bias"):
        for norm in ("norm", "norm_a", "norm_v"):
            state[f"{norm}.{part}"] = weights[f"norm.{part}"]
        for layer in ("decoder_embed", "decoder_norm"):
            state[f"{layer}.{part}"] = weights[f"{layer}.{part}"]
        prediction = weights[f"decoder_pred.{part}"]
        state[f"decoder_pred_v.{part}"] = prediction
        state[f"decoder_pred_a.{part}"] = prediction[: config.patch_size**2]
    state["patch_embed_v.proj.weight"] = patch
    state["patch_embed_a.proj.weight"] = patch.sum(dim=1, keepdim=True)
    for stream in ("a", "v"):
        state[f"patch_embed_{stream}.proj.bias"] = weights["patch_embed.proj.bias"]
    state["mask_token"] = weights["mask_token"]
    state["pos_embed_v"] = weights["pos_embed"][:, 1:]
    state["decoder_pos_embed_v"] = weights["decoder_pos_embed"][:, 1:]
    model.load_state_dict({name: torch.as_tensor(value) for name, value in state.items()})
    return model


def _streams(name: str) -> list[str]:
    """A block's tensor under the names of all its streams: norms have three, the rest one."""
    for norm in _NORMS:
        if f".{norm}." in name:
            return [name.replace(f".{norm}.", f".{norm}{suffix}.") for suffix in ("", "_a", "_v")]
    return [name]


def _count(weights: Mapping[str, Tensor], blocks: str) -> int:
    return len({name.split(".")[1] for name in weights if name.startswith(f"{blocks}.")})
