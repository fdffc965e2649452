"""cavmae: the CAV-MAE model and its streaming trainer."""

from __future__ import annotations

import importlib
from typing import Any

# Imported when first used: `cavmae --help` must not wait for PyTorch.
_LAZY = {
    "PredictOptions": "cavmae.evaluate.predict",
    "Prediction": "cavmae.evaluate.predict",
    "Predictor": "cavmae.evaluate.predict",
    "predict": "cavmae.evaluate.predict",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
