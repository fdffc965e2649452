"""cavmae: the CAV-MAE model and its streaming trainer.

The names below are imported when they are first used, so that `import cavmae` is instant and needs
PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cavmae.checkpoints import load_checkpoint, save_model
    from cavmae.frontend import FrontEnd, FrontEndOptions
    from cavmae.model import CAVMAE, CAVMAEClassifier, ModelConfig, PretrainOptions

__all__ = [
    "CAVMAE",
    "CAVMAEClassifier",
    "FrontEnd",
    "FrontEndOptions",
    "ModelConfig",
    "PretrainOptions",
    "load_checkpoint",
    "save_model",
]

_HOMES = {
    "CAVMAE": "cavmae.model",
    "CAVMAEClassifier": "cavmae.model",
    "FrontEnd": "cavmae.frontend",
    "FrontEndOptions": "cavmae.frontend",
    "ModelConfig": "cavmae.model",
    "PretrainOptions": "cavmae.model",
    "load_checkpoint": "cavmae.checkpoints",
    "save_model": "cavmae.checkpoints",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
