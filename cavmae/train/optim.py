"""Optimiser, parameter groups and learning rate: small functions of options."""

from __future__ import annotations

import math

from torch import nn
from torch.optim import Adam, AdamW, Optimizer

from cavmae.model import ModelConfig
from cavmae.model.encoder import Encoder
from cavmae.train.options import OptimOptions, TransferOptions

_HEAD = "mlp_head."


def freeze_base(model: nn.Module) -> None:
    """Leave only the classifier head to be trained."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and name.startswith(_HEAD))


def build_optimizer(
    model: Encoder, options: OptimOptions, transfer: TransferOptions | None = None
) -> Optimizer:
    """An optimiser with a group for each ratio of learning rates; it updates in one pass.

    Each group carries `lr_ratio`, what the schedule's rate is multiplied by.
    """
    transfer = transfer or TransferOptions()
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            place = name.startswith(_HEAD), lr_ratio(name, model.config, transfer)
            groups.setdefault(place, []).append(parameter)
    kind = {"adam": Adam, "adamw": AdamW}[options.optimizer]
    return kind(
        [{"params": group, "lr_ratio": ratio} for (_, ratio), group in groups.items()],
        lr=options.lr,
        betas=(options.beta1, options.beta2),
        weight_decay=options.weight_decay,
        fused=True,
    )


def lr_ratio(name: str, config: ModelConfig, options: TransferOptions) -> float:
    """What a parameter's learning rate is multiplied by.

    With layer decay the last block has `layer_decay`, the one before its square, and so on down to
    the patch embeddings (as in BEiT and MAE finetuning); norms after the last block have 1.
    """
    if name.startswith(_HEAD):
        return options.head_lr_ratio
    stack, _, rest = name.partition(".")
    if stack in ("blocks_a", "blocks_v"):
        depth = int(rest.split(".")[0]) + 1
    elif stack == "blocks_u":
        depth = config.modality_depth + int(rest.split(".")[0]) + 1
    elif stack.startswith(("patch_embed_", "pos_embed_", "modality_")):
        depth = 0
    else:
        depth = config.depth + 1
    return options.layer_decay ** (config.depth + 1 - depth)


def learning_rate(options: OptimOptions, step: int, steps_per_epoch: int, epochs: int) -> float:
    """The base learning rate of a step (counted from 0).

    Multistep as published: after `decay_start` epochs the rate is multiplied by `decay_rate`, and
    again every `decay_step` epochs. Cosine falls to zero over the whole run. Warm-up is
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
