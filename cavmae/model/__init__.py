"""The CAV-MAE models."""

from cavmae.model.cavmae import CAVMAE, PretrainOutput, draw_noise
from cavmae.model.classifier import CAVMAEClassifier
from cavmae.model.config import ModelConfig
from cavmae.options import MASK_MODES, MODES, MaskMode, Mode, PretrainOptions

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
