from .checkpoints import load_checkpoint, save_model
from .evaluation.embed import EmbedResult, embed
from .evaluation.evaluate import EvaluateResult, evaluate
from .evaluation.export import ExportResult, export
from .evaluation.inpaint import InpaintResult, inpaint
from .evaluation.knn import KnnResult, knn
from .evaluation.options import (
    EmbedOptions,
    EvaluateOptions,
    ExportOptions,
    InpaintOptions,
    KnnOptions,
    PredictOptions,
    RetrieveOptions,
)
from .evaluation.predict import Prediction, Predictor, predict
from .evaluation.retrieve import RetrieveResult, retrieve
from .evaluation.trained import Trained, load_trained
from .frontend import FrontEnd, FrontEndOptions
from .model import CAVMAE, CAVMAEClassifier, ModelConfig, PretrainOptions

__all__ = [
    "CAVMAE",
    "CAVMAEClassifier",
    "EmbedOptions",
    "EmbedResult",
    "EvaluateOptions",
    "EvaluateResult",
    "ExportOptions",
    "ExportResult",
    "FrontEnd",
    "FrontEndOptions",
    "InpaintOptions",
    "InpaintResult",
    "KnnOptions",
    "KnnResult",
    "ModelConfig",
    "PredictOptions",
    "Prediction",
    "Predictor",
    "PretrainOptions",
    "RetrieveOptions",
    "RetrieveResult",
    "Trained",
    "embed",
    "evaluate",
    "export",
    "inpaint",
    "knn",
    "load_checkpoint",
    "load_trained",
    "predict",
    "retrieve",
    "save_model",
]
