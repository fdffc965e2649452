"""Models that are trained in moments, for samples as those of tiny_shards.py."""

from __future__ import annotations

from dataclasses import replace

from cavmae.model import ModelConfig
from tests.cavmae.tiny_shards import SIZE

TINY = ModelConfig(
    embed_dim=16,
    depth=2,
    modality_depth=1,
    num_heads=2,
    decoder_dim=16,
    decoder_depth=1,
    decoder_heads=2,
    patch_size=8,
    image_size=SIZE,
    audio_frames=16,
)
SMALL = replace(TINY, embed_dim=32, depth=3, modality_depth=2)  # two blocks follow one another
