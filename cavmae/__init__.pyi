from .checkpoints import load_checkpoint, save_model
from .evaluation.predict import Prediction, PredictOptions, Predictor, predict
from .evaluation.trained import Trained, load_trained
from .frontend import FrontEnd, FrontEndOptions
from .model import CAVMAE, CAVMAEClassifier, ModelConfig, PretrainOptions

__all__ = [
    "CAVMAE",
    "CAVMAEClassifier",
    "FrontEnd",
    "FrontEndOptions",
    "ModelConfig",
    "PredictOptions",
    "Prediction",
    "Predictor",
    "PretrainOptions",
    "Trained",
    "load_checkpoint",
    "load_trained",
    "predict",
    "save_model",
]
