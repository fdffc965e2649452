from .checkpoints import load_checkpoint, save_model
from .checkpoints.average import Averaged, average
from .checkpoints.convert import Converted, convert
from .evaluate.predict import Prediction, PredictOptions, Predictor, predict
from .evaluate.trained import Trained, load_trained
from .frontend import FrontEnd, FrontEndOptions
from .frontend.stats import FbankStats, stats
from .model import CAVMAE, CAVMAEClassifier, ModelConfig
from .options import ConvertOptions, PretrainOptions, StatsOptions
from .train.dry_run import DryRun
from .train.events import Event, Measured, Normalisation, Note, OnEvent, Steps
from .train.options import FinetuneRun, PretrainRun
from .train.outlook import Outlook
from .train.runs import FinetuneResult, PretrainResult, finetune, pretrain, rehearse

__all__ = [
    "CAVMAE",
    "Averaged",
    "CAVMAEClassifier",
    "ConvertOptions",
    "Converted",
    "DryRun",
    "Event",
    "FbankStats",
    "FinetuneResult",
    "FinetuneRun",
    "FrontEnd",
    "FrontEndOptions",
    "Measured",
    "ModelConfig",
    "Normalisation",
    "Note",
    "OnEvent",
    "Outlook",
    "PredictOptions",
    "Prediction",
    "Predictor",
    "PretrainOptions",
    "PretrainResult",
    "PretrainRun",
    "StatsOptions",
    "Steps",
    "Trained",
    "average",
    "convert",
    "finetune",
    "load_checkpoint",
    "load_trained",
    "predict",
    "pretrain",
    "rehearse",
    "save_model",
    "stats",
]
