"""How a file's tensors differ from a model's, in words a person can read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

_LINES_SHOWN = 12  # of each kind
_NUMBER = re.compile(r"\.(\d+)\.")


@dataclass(frozen=True)
class Difference:
    """Each name with what there is to say about its shape."""

    missing: Mapping[str, str]  # the model has them, the file does not
    unexpected: Mapping[str, str]  # the file has them, the model does not
    misshapen: Mapping[str, str]  # both have them

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.misshapen)

    def _kinds(self) -> Iterable[tuple[str, Mapping[str, str]]]:
        named = {
            "wrong shape": self.misshapen,
            "missing": self.missing,
            "unexpected": self.unexpected,
        }
        return ((kind, names) for kind, names in named.items() if names)

    def line(self) -> str:
        """All in one line: how many of each kind, with the first as an example."""
        parts = []
        for kind, names in self._kinds():
            name, shape = next(iter(names.items()))
            more = ", …" if len(names) > 1 else ""
            parts.append(f"{len(names)} {kind} ({name} {shape}{more})")
        return "tensors " + "; ".join(parts)

    def lines(self) -> list[str]:
        """One line per tensor; tensors that differ only in their block's number share one."""
        lines = []
        for kind, names in self._kinds():
            rows = _collapse(names)
            lines += [f"  {kind}: {row}" for row in rows[:_LINES_SHOWN]]
            if len(rows) > _LINES_SHOWN:
                lines.append(f"  {kind}: … and {len(rows) - _LINES_SHOWN} more lines like these")
        return lines


def compare(model: Mapping[str, Tensor], file: Mapping[str, Tensor]) -> Difference:
    """The file's missing, unexpected and misshapen tensors."""
    return Difference(
        {name: _shape(value) for name, value in model.items() if name not in file},
        {name: _shape(value) for name, value in file.items() if name not in model},
        {
            name: f"{_shape(file[name])}, the model has {_shape(value)}"
            for name, value in model.items()
            if name in file and file[name].shape != value.shape
        },
    )


def _shape(value: Tensor) -> str:
    return str(list(value.shape))


def _collapse(names: Mapping[str, str]) -> list[str]:
    """`blocks_a.0.norm1.bias`, `blocks_a.1.norm1.bias` → `blocks_a.{0,1}.norm1.bias`."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name, shape in names.items():
        groups.setdefault((_NUMBER.sub(".*.", name, count=1), shape), []).append(name)
    rows = []
    for (pattern, shape), members in groups.items():
        if len(members) == 1:
            rows.append(f"{members[0]} {shape}".rstrip())
        else:
            numbers = (int(match[1]) for name in members if (match := _NUMBER.search(name)))
            blocks = pattern.replace("*", f"{{{_ranges(numbers)}}}", 1)
            rows.append(f"{blocks} {shape}".rstrip())
    return rows


def _ranges(numbers: Iterable[int]) -> str:
    """0, 1, 2, 5 → `0-2,5`."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
