from . import data
from .checkpoints import load_checkpoint, save_model
from .checkpoints.average import Averaged, average
from .checkpoints.convert import Converted, convert
from .evaluation.compare import CompareResult, compare
from .evaluation.embed import EmbedResult, embed
from .evaluation.evaluate import EvaluateResult, evaluate
from .evaluation.export import ExportResult, export
from .evaluation.inpaint import InpaintResult, inpaint
from .evaluation.knn import KnnResult, knn
from .evaluation.options import (
    CompareOptions,
    EmbedOptions,
    EvaluateOptions,
    ExportOptions,
    InpaintOptions,
    KnnOptions,
    PredictOptions,
    ProbeOptions,
    RetrieveOptions,
)
from .evaluation.predict import Prediction, Predictor, predict
from .evaluation.probe import ProbeResult, probe
from .evaluation.retrieve import RetrieveResult, retrieve
from .evaluation.score_files import ClipScores, read_scores
from .evaluation.trained import Trained, load_trained
from .frontend import FrontEnd, FrontEndOptions
from .frontend.stats import FbankStats, stats
from .model import CAVMAE, CAVMAEClassifier, ModelConfig
from .options import ConvertOptions, PretrainOptions, PushOptions, ShardOptions, StatsOptions
from .publishing import Pushed, push
from .train.dry_run import DryRun
from .train.events import Event, Measured, Normalisation, Note, OnEvent, Steps
from .train.folds import FoldsResult, folds
from .train.options import FinetuneRun, FoldsRun, PretrainRun
from .train.outlook import Outlook
from .train.runs import FinetuneResult, PretrainResult, finetune, pretrain, rehearse

__all__ = [
    "CAVMAE",
    "Averaged",
    "CAVMAEClassifier",
    "ClipScores",
    "CompareOptions",
    "CompareResult",
    "ConvertOptions",
    "Converted",
    "DryRun",
    "EmbedOptions",
    "EmbedResult",
    "EvaluateOptions",
    "EvaluateResult",
    "Event",
    "ExportOptions",
    "ExportResult",
    "FbankStats",
    "FinetuneResult",
    "FinetuneRun",
    "FoldsResult",
    "FoldsRun",
    "FrontEnd",
    "FrontEndOptions",
    "InpaintOptions",
    "InpaintResult",
    "KnnOptions",
    "KnnResult",
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
    "ProbeOptions",
    "ProbeResult",
    "PushOptions",
    "Pushed",
    "RetrieveOptions",
    "RetrieveResult",
    "ShardOptions",
    "StatsOptions",
    "Steps",
    "Trained",
    "average",
    "compare",
    "convert",
    "data",
    "embed",
    "evaluate",
    "export",
    "finetune",
    "folds",
    "inpaint",
    "knn",
    "load_checkpoint",
    "load_trained",
    "predict",
    "pretrain",
    "probe",
    "push",
    "read_scores",
    "rehearse",
    "retrieve",
    "save_model",
    "stats",
]
