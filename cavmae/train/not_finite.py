"""The end of a run whose loss or gradients are not finite: which samples it was, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from avprep import storage
from avprep.errors import WorkFailed
from avprep.wording import first_of
from cavmae.data import Batch
from cavmae.distributed import World
from cavmae.frontend import FrontEnd
from cavmae.train.ahead import LaunchedStep
from cavmae.train.place import CHECKPOINTS, RunFolder

WHAT_HELPS = "Lower --lr, set --clip-grad, or use --precision fp32."
_REPORT = "not-finite.json"
_SHOWN = 8  # samples in the message; all of them are in the file


def end_not_finite(
    step: LaunchedStep, bad: Sequence[str], frontend: FrontEnd, world: World, folder: RunFolder
) -> NoReturn:
    """End a run. All ranks call it with the same step; it may be the loss of another one.

    Args:
        step: whose losses were read last.
        bad: those of this rank that are not finite, by name.
        frontend: makes the inputs again, to see which were broken before the model had them.
        world: this process among its peers.
        folder: the run directory, which gets not-finite.json.

    Raises:
        WorkFailed: always.
    """
    ids = [video_id for batch in step.batches for video_id in batch.video_ids]
    found = world.gather((bad, broken_inputs(step.batches, frontend), ids))
    reasons = sorted({name for names, _, _ in found for name in names})
    suspects = [names for _, names, _ in found]
    if not any(suspects):  # then the samples of the ranks whose loss it was, else all
        suspects = [names for bad, _, names in found if set(bad) - {"grad_norm"}]
    suspects = suspects or [names for _, _, names in found]
    everyone = [name for names in suspects for name in names]
    if world.is_main:
        content = {"step": step.number, "not_finite": reasons, "video_ids": everyone}
        storage.write_json(folder.path / _REPORT, content)
    raise WorkFailed(
        f"not finite at step {step.number}: {', '.join(reasons)} (samples "
        f"{first_of(everyone, _SHOWN)}; all of them in {folder.shown(_REPORT)}). The last "
        f"checkpoint in {folder.shown(CHECKPOINTS)} is good. {WHAT_HELPS}"
    )


def broken_inputs(batches: Sequence[Batch], frontend: FrontEnd) -> list[str]:
    """The samples whose inputs are not finite by themselves."""
    names = []
    for batch in batches:
        inputs = frontend(batch)
        sound = inputs.audio.flatten(1).isfinite().all(1)
        sound &= inputs.image.flatten(1).isfinite().all(1)
        names += [v for v, good in zip(batch.video_ids, sound.tolist(), strict=True) if not good]
    return names
