"""The loss on each set of a mixture, whose clips are together in every batch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from cavmae.data import Batch, Mixture

_LOSS, _SHARE = "loss_of_", "share_of_"


class SetLosses:
    """What a batch's clips of each set have of its loss; nothing waits for the device.

    A set may have no clip in a batch. So its loss is added up over steps and ranks as two means
    over all clips, as every other one is: of the losses of its clips, with zeros for the others,
    and of how many are its own. `shown` divides the one by the other.
    """

    def __init__(self, shards: Mixture, device: torch.device) -> None:
        """Args:
        shards: that are trained on.
        device: of the batches.
        """
        self._names = shards.names
        self._starts, self._ends = (
            torch.from_numpy(bounds).to(device)
            for bounds in (shards.starts[:-1], shards.starts[1:])
        )

    def of(self, batch: Batch, by_clip: Tensor) -> dict[str, Tensor]:
        """Both means of each set, by name.

        Args:
            batch: on the device.
            by_clip: float [B], the loss of each of its clips.
        """
        index = batch.index[:, None]
        is_own = ((index >= self._starts) & (index < self._ends)).float()  # [B, sets]
        losses, shares = (by_clip @ is_own) / len(batch), is_own.mean(dim=0)
        return {
            **{_LOSS + name: one for name, one in zip(self._names, losses, strict=True)},
            **{_SHARE + name: one for name, one in zip(self._names, shares, strict=True)},
        }


def shown(means: Mapping[str, float]) -> dict[str, float]:
    """Means as the log has them: the loss of a set is that of its own clips, if there are any."""
    found = dict(means)
    for name in filter(lambda name: name.startswith(_SHARE), means):
        share, own = found.pop(name), _LOSS + name.removeprefix(_SHARE)
        part = found.pop(own)
        if share:
            found[own] = part / share
    return found
