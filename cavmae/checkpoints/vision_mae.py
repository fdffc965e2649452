"""Initial weights of CAV-MAE from a vision MAE (ViT with decoder, timm-style names)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from avprep.errors import UserError
from cavmae.checkpoints.difference import Difference, compare
from cavmae.checkpoints.published import HEAD_DIM, block_count
from cavmae.model import CAVMAE, ModelConfig
from cavmae.options import Objective

_SHARED_BLOCKS = 1  # the last one; the others become both modalities' own
_UNUSED = frozenset(("cls_token",))
_FRESH = frozenset(  # a vision MAE has nothing for them
    (
        *("modality_a", "modality_v", "decoder_modality_a", "decoder_modality_v"),
        *("pos_embed_a", "decoder_pos_embed_a"),
    )
)


def from_vision_mae(
    weights: Mapping[str, Tensor], where: str, objective: Objective = "cav-mae"
) -> CAVMAE:
    """A CAV-MAE that starts from a vision MAE (paper, section 3.3).

    Encoder blocks but the last go to both modalities, the last to the shared block with its norms
    copied to all three streams; the image patch embedding is summed over colours for audio; the
    decoder is taken over, its prediction head cut to one channel for audio. Class tokens are
    dropped and audio positions stay sine-cosine.

    Args:
        weights: the vision MAE's tensors, by timm's names.
        where: names the file in errors.
        objective: cav-mae or av-mae, whose one encoder takes all blocks.

    Raises:
        UserError: a tensor is missing, unexpected or of another shape.
    """
    config = _config(weights, where).with_objective(objective)
    model = CAVMAE(config)
    state = model.state_dict()
    sources = {name: _source(name, config.modality_depth) for name in state if name not in _FRESH}
    read = {*sources.values(), *_UNUSED}
    missing = sorted(read - set(weights) - _UNUSED)
    unexpected = [name for name in weights if name not in read]
    if missing or unexpected:
        gone = dict.fromkeys(missing, "")
        strange = {name: str(list(weights[name].shape)) for name in unexpected}
        lines = Difference(gone, strange, {}).lines()
        raise UserError(f"{where}: not a vision MAE with decoder:", *lines)
    found = {name: _fitted(name, weights[source], config) for name, source in sources.items()}
    fresh = {name: state[name] for name in _FRESH}
    if difference_of_shapes := compare(state, {**fresh, **found}):
        raise UserError(f"{where}: does not fit:", *difference_of_shapes.lines())
    model.load_state_dict({**fresh, **found})
    return model


def _config(weights: Mapping[str, Tensor], where: str) -> ModelConfig:
    """The size that the vision MAE's shapes tell."""
    try:
        dim, _, patch, _ = weights["patch_embed.proj.weight"].shape
        places = weights["pos_embed"].shape[1] - 1  # without the class token
        decoder_dim = weights["decoder_embed.weight"].shape[0]
        depth = block_count(weights, "blocks")
        return ModelConfig(
            embed_dim=dim,
            depth=depth,
            modality_depth=depth - _SHARED_BLOCKS,
            num_heads=max(dim // HEAD_DIM, 1),
            decoder_dim=decoder_dim,
            decoder_depth=block_count(weights, "decoder_blocks"),
            patch_size=patch,
            image_size=round(max(places, 0) ** 0.5) * patch,
        )
    except KeyError as error:
        raise UserError(
            f"{where}: not a vision MAE with decoder, it has no {error.args[0]}."
        ) from None
    except (ValueError, IndexError):
        raise UserError(f"{where}: not a vision MAE, its tensors have unexpected shapes.") from None
    except UserError as error:
        raise UserError(f"{where}: its weights have an impossible size: {error}") from error


def _source(name: str, own_blocks: int) -> str:
    """The vision MAE's tensor that one of CAV-MAE's begins with."""
    blocks, _, rest = name.partition(".")
    rest = re.sub(r"(norm\d)_[av]\.", r"\1.", rest)  # a norm serves all three streams
    if blocks in ("blocks_a", "blocks_v"):
        return f"blocks.{rest}"
    if blocks == "blocks_u":
        number, _, rest = rest.partition(".")
        return f"blocks.{int(number) + own_blocks}.{rest}"
    one_for_both = re.sub(r"_[av]$", "", blocks)  # patch_embed_a, decoder_pred_v, norm_a, …
    return f"{one_for_both}.{rest}" if rest else one_for_both


def _fitted(name: str, value: Tensor, config: ModelConfig) -> Tensor:
    """The part of a vision MAE's tensor that goes to `name`."""
    if name == "patch_embed_a.proj.weight":
        return value.sum(dim=1, keepdim=True)
    if name.startswith("decoder_pred_a."):
        return value[: config.patch_size**2]
    if name.endswith("pos_embed_v"):
        return value[:, 1:]
    return value
