"""Fixtures of the tests of cavmae."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cavmae.checkpoints import save_model
from cavmae.model import CAVMAE
from tests.cavmae.tiny_models import TINY


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a pretrained model with random weights."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_model(path, CAVMAE(TINY), {"fbank_mean": "-5.0", "fbank_std": "4.0"})
    return path
