"""Optimiser, parameter groups and learning rate: small functions of options."""

from __future__ import annotations

import math

from torch import nn
from torch.optim import Adam, AdamW, Optimizer

from cavmae.train.options import OptimOptions

_HEAD = "mlp_head."


def build_optimizer(model: nn.Module, options: OptimOptions) -> Optimizer:
    """An optimiser with a group for the base and one for the classifier head.

    Each group carries `lr_ratio`, what the schedule's rate is multiplied by.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    head = [p for name, p in named if _HEAD in name]
    base = [p for name, p in named if _HEAD not in name]
    groups = []
    if base and not (options.freeze_base and head):
        groups.append({"params": base, "lr_ratio": 1.0})
    if head:
        groups.append({"params": head, "lr_ratio": options.head_lr_ratio})
    kind = {"adam": Adam, "adamw": AdamW}[options.optimizer]
    return kind(
        groups,
        lr=options.lr,
        betas=(options.beta1, options.beta2),
        weight_decay=options.weight_decay,
    )


def learning_rate(options: OptimOptions, step: int, steps_per_epoch: int, epochs: int) -> float:
    """The base learning rate of a step (counted from 0).

    Multistep as published: from epoch `decay_start` (counted from 1) the rate is multiplied by
    `decay_rate` every `decay_step` epochs. Cosine falls to zero over the whole run. Warm-up is
    linear, and zero epochs long unless asked for.
    """
    warmup = options.warmup_epochs * steps_per_epoch
    if step < warmup:
        return options.lr * (step + 1) / warmup
    if options.schedule == "cosine":
        span = max(epochs * steps_per_epoch - warmup, 1)
        return options.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / span))
    epoch = step // steps_per_epoch  # from 0; the scheduler steps at the end of each epoch
    decays = 0
    if epoch >= options.decay_start:
        decays = 1 + (epoch - options.decay_start) // options.decay_step
    return options.lr * options.decay_rate**decays


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Give every group the schedule's rate times its own ratio."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_ratio"]
