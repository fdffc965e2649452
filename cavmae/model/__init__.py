"""The CAV-MAE models."""

from cavmae.model.cavmae import CAVMAE, PretrainOptions, PretrainOutput, draw_noise
from cavmae.model.classifier import CAVMAEClassifier
from cavmae.model.config import ModelConfig
from cavmae.model.masking import MASK_MODES, MaskMode
from cavmae.options import MODES, Mode

__all__ = [
    "CAVMAE",
    "MASK_MODES",
    "MODES",
    "CAVMAEClassifier",
    "MaskMode",
    "Mode",
    "ModelConfig",
    "PretrainOptions",
    "PretrainOutput",
    "draw_noise",
]
