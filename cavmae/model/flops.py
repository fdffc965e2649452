"""How much arithmetic a model needs: multiplications and additions of its matrix products.

What is left out (norms, activations, the contrast between clips) is below a hundredth of it.
"""

from __future__ import annotations

from collections.abc import Mapping

from cavmae.model.config import ModelConfig
from cavmae.model.masking import kept_patches
from cavmae.options import Modality, Mode, PretrainOptions, modalities_of


def pretraining_flops(config: ModelConfig, options: PretrainOptions) -> int:
    """Of one sample's forward pass through `CAVMAE`."""
    seen: dict[Modality, int] = {
        modality: kept_patches(config.patches(modality), options.mask_ratio)
        if config.reconstructs
        else config.patches(modality)
        for modality in config.modalities
    }
    total = _own(config, seen)
    if config.contrasts and options.contrast_weight:
        total += sum(_shared(config, count) for count in seen.values())
    if config.reconstructs and options.mae_weight:
        total += _shared(config, sum(seen.values())) + _decoder(config, seen)
    return total


def classifier_flops(config: ModelConfig, mode: Mode, classes: int) -> int:
    """Of one sample's forward pass through `CAVMAEClassifier`."""
    seen = {modality: config.patches(modality) for modality in modalities_of(mode)}
    passes = 2 if mode.startswith("missing") else 1
    head = 2 * config.embed_dim * classes
    return _own(config, seen) + passes * _shared(config, sum(seen.values())) + head


def _own(config: ModelConfig, seen: Mapping[Modality, int]) -> int:
    """Patch embeddings and each modality's own blocks, for this many patches of each."""
    dim = config.embed_dim
    return sum(
        2 * _pixels(config, modality) * dim * count
        + config.modality_depth * _block(count, dim, config)
        for modality, count in seen.items()
    )


def _shared(config: ModelConfig, tokens: int) -> int:
    return (config.depth - config.modality_depth) * _block(tokens, config.embed_dim, config)


def _decoder(config: ModelConfig, seen: Mapping[Modality, int]) -> int:
    """For this many visible patches of each modality; the hidden ones alone are predicted."""
    dim = config.decoder_dim
    tokens = sum(config.patches(modality) for modality in seen)
    outputs = sum(
        _pixels(config, modality) * (config.patches(modality) - count)
        for modality, count in seen.items()
    )
    inputs = 2 * sum(seen.values()) * config.embed_dim * dim
    return inputs + config.decoder_depth * _block(tokens, dim, config) + 2 * dim * outputs


def _pixels(config: ModelConfig, modality: Modality) -> int:
    """Values of a patch."""
    return config.patch_size**2 * (3 if modality == "image" else 1)


def _block(tokens: int, dim: int, config: ModelConfig) -> int:
    """Four projections of attention, attention itself, and the two layers of the MLP."""
    hidden = int(dim * config.mlp_ratio)
    return 2 * tokens * (4 * dim * dim + 2 * tokens * dim + 2 * dim * hidden)
