"""How much arithmetic a model needs: multiplications and additions of its matrix products.

What is left out (norms, activations, the contrast between clips) is below a hundredth of it.
"""

from __future__ import annotations

from cavmae.model.config import ModelConfig
from cavmae.model.masking import kept_patches
from cavmae.options import AUDIO_MODES, IMAGE_MODES, Mode, PretrainOptions


def pretraining_flops(config: ModelConfig, options: PretrainOptions) -> int:
    """Of one sample's forward pass through `CAVMAE`."""
    audio = kept_patches(config.audio_patches, options.mask_ratio)
    image = kept_patches(config.image_patches, options.mask_ratio)
    total = _own(config, audio, image)
    if options.contrast_weight:
        total += _shared(config, audio) + _shared(config, image)
    if options.mae_weight:
        total += _shared(config, audio + image) + _decoder(config, audio, image)
    return total


def classifier_flops(config: ModelConfig, mode: Mode, classes: int) -> int:
    """Of one sample's forward pass through `CAVMAEClassifier`."""
    audio = 0 if mode in IMAGE_MODES else config.audio_patches
    image = 0 if mode in AUDIO_MODES else config.image_patches
    passes = 2 if mode.startswith("missing") else 1
    head = 2 * config.embed_dim * classes
    return _own(config, audio, image) + passes * _shared(config, audio + image) + head


def _own(config: ModelConfig, audio: int, image: int) -> int:
    """Patch embeddings and each modality's own blocks, for so many patches."""
    pixels = config.patch_size**2
    embedding = 2 * pixels * config.embed_dim * (audio + 3 * image)
    blocks = _block(audio, config.embed_dim, config) + _block(image, config.embed_dim, config)
    return embedding + config.modality_depth * blocks


def _shared(config: ModelConfig, tokens: int) -> int:
    return (config.depth - config.modality_depth) * _block(tokens, config.embed_dim, config)


def _decoder(config: ModelConfig, audio: int, image: int) -> int:
    """For so many visible patches; the hidden ones alone are predicted."""
    dim, pixels = config.decoder_dim, config.patch_size**2
    blocks = config.decoder_depth * _block(config.audio_patches + config.image_patches, dim, config)
    outputs = pixels * (config.audio_patches - audio + 3 * (config.image_patches - image))
    return 2 * (audio + image) * config.embed_dim * dim + blocks + 2 * dim * outputs


def _block(tokens: int, dim: int, config: ModelConfig) -> int:
    """Four projections of attention, attention itself, and the two layers of the MLP."""
    hidden = int(dim * config.mlp_ratio)
    return 2 * tokens * (4 * dim * dim + 2 * tokens * dim + 2 * dim * hidden)
