"""What the processes of tests/forks.py have loaded when they begin."""

from __future__ import annotations

import importlib

import matplotlib.backends.backend_agg  # noqa: F401
import tensorboard.summary.writer.event_file_writer  # noqa: F401
import torch

from cavmae.cli import COMMANDS

for _name in ("pretrain", "finetune", "eval", "retrieve", "knn", "embed"):
    importlib.import_module(COMMANDS[_name].target.partition(":")[0])
# The first step of an optimiser loads PyTorch's compiler.
torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))]).step()
