"""The two things that are trained: what a batch's loss is, and how well it goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cavmae.frontend import Inputs
from cavmae.model import CAVMAE, CAVMAEClassifier, Mode, PretrainOptions, PretrainOutput
from cavmae.options import Criterion

Gather = Callable[[Tensor], Tensor]
# Fields of `PretrainOutput` that are logged, as far as the objective has them.
PRETRAIN_PARTS = ("loss_mae_audio", "loss_mae_image", "loss_contrast", "contrast_accuracy")


@dataclass(frozen=True)
class StepLoss:
    """A batch's loss, the parts to show, and that of each clip [B] where it was asked for."""

    loss: Tensor
    parts: dict[str, Tensor]
    by_clip: Tensor | None = None


class Task(Protocol):
    """What the loop needs to know of a task."""

    @property
    def name(self) -> str:
        """Of the task, as the log names it."""
        ...

    def loss(
        self,
        model: nn.Module,
        inputs: Inputs,
        generator: torch.Generator,
        gather: Gather | None = None,
        by_clip: bool = False,
    ) -> StepLoss:
        """The loss of one batch.

        Args:
            model: what to call, however it is spread over the ranks.
            inputs: on its device.
            generator: of all random steps, on the device.
            gather: collects the rows of all ranks' batches, with gradient; None for one rank.
            by_clip: give the loss of each clip, too.
        """
        ...


@dataclass(frozen=True)
class PretrainTask:
    """Masked reconstruction and contrast, or what of them the model's objective has."""

    options: PretrainOptions
    name: str = "pretrain"

    def loss(
        self,
        model: nn.Module,
        inputs: Inputs,
        generator: torch.Generator,
        gather: Gather | None = None,
        by_clip: bool = False,
    ) -> StepLoss:
        out: PretrainOutput = model(
            inputs.audio,
            inputs.image,
            self.options,
            generator=generator,
            gather=gather if self.options.contrast_scope == "global" else None,
            predictions=False,
            by_clip=by_clip,
        )
        parts = {name: getattr(out, name) for name in PRETRAIN_PARTS}
        return StepLoss(
            out.loss,
            {name: one.detach() for name, one in parts.items() if one is not None},
            out.clip_loss,
        )


@dataclass(frozen=True)
class FinetuneTask:
    """Classification: binary cross-entropy for several labels per clip, cross-entropy for one."""

    mode: Mode
    criterion: Criterion
    name: str = "finetune"

    def loss(
        self,
        model: nn.Module,
        inputs: Inputs,
        generator: torch.Generator,
        gather: Gather | None = None,
        by_clip: bool = False,
    ) -> StepLoss:
        logits = model(inputs.audio, inputs.image, self.mode).float()
        criterion = (
            F.binary_cross_entropy_with_logits if self.criterion == "bce" else F.cross_entropy
        )
        loss = criterion(logits, inputs.targets)
        of_clips = None
        if by_clip:
            each = criterion(logits.detach(), inputs.targets, reduction="none")
            of_clips = each.view(len(logits), -1).mean(dim=1)
        truth = inputs.targets.gather(1, logits.argmax(1, keepdim=True))
        correct = (truth >= inputs.targets.amax(1, keepdim=True)).float().mean()
        return StepLoss(loss, {"train_accuracy": correct}, of_clips)


def freeze_unused(model: CAVMAE | CAVMAEClassifier, task: Task, device: torch.device) -> None:
    """Leave untrained the parameters that a task's loss does not depend on.

    Else ranks would look for them in every step, so as not to wait for their gradients. They are
    found by a backward pass through an empty sample.

    Args:
        model: on the device, not yet spread over the ranks.
        task: gives the loss.
        device: of the model.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    slopes = torch.autograd.grad(_empty_loss(model, task, device), trained, allow_unused=True)
    for parameter, slope in zip(trained, slopes, strict=True):
        parameter.requires_grad_(slope is not None)


def forward_flops(model: CAVMAE | CAVMAEClassifier, task: Task, device: torch.device) -> int:
    """Multiplications and additions of the matrix products in one sample's forward pass.

    Args:
        model: on the device, neither compiled nor spread over the ranks.
        task: gives the loss.
        device: of the model.
    """
    # PyTorch counts matrix products; other implementations of attention are not made of them.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        _empty_loss(model, task, device)
    return counter.get_total_flops()


def _empty_loss(model: CAVMAE | CAVMAEClassifier, task: Task, device: torch.device) -> Tensor:
    """The loss of an empty sample."""
    config = model.config
    classes = model.num_classes if isinstance(model, CAVMAEClassifier) else 0
    empty = Inputs(
        torch.zeros(1, config.audio_frames, config.mel_bins, device=device),
        torch.zeros(1, 3, config.image_size, config.image_size, device=device),
        torch.zeros(1, classes, device=device),
    )
    return task.loss(model, empty, torch.Generator(device)).loss
