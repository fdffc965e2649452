"""Which values of the measures mean a fault: the thresholds, stated once.

docs/quality.md gives their reasons and shows examples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Fault:
    """A measure at or beyond its threshold."""

    name: str  # of clips that have it
    measure: str
    threshold: float
    is_above: bool = True  # the fault lies at higher values

    @property
    def condition(self) -> str:
        """As `avprep filter --where` takes it: `stillness >= 0.98`."""
        return f"{self.measure} {'>=' if self.is_above else '<='} {self.threshold:g}"

    def found_in(self, values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which values of the measure mean the fault."""
        return values >= self.threshold if self.is_above else values <= self.threshold


FAULTS = (
    Fault("silent", "silent", 0.95),
    Fault("quiet", "rms_db", -50, is_above=False),
    Fault("clipped", "clipped", 0.002),
    Fault("noise", "flatness", 0.75),
    Fault("still", "stillness", 0.98),
    Fault("blank", "blank", 0.5),
    Fault("blurred", "blur", 0.42),
    Fault("letterboxed", "letterbox", 0.08),
)
