"""Which clips of a shard set meet a condition on what was measured of them."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from avprep.errors import UserError
from avprep.options import FilterOptions
from avprep.progress import OnProgress, each, ignore
from avprep.quality.measures import MEASURES
from avprep.selection import write_selection
from avprep.shards.format import DatasetInfo, SampleEntry, read_dataset
from avprep.shards.measured import read_measured

# What a condition may name besides the measures: facts of the index.
_FACTS: Mapping[str, Callable[[SampleEntry, DatasetInfo], Any]] = {
    "video_id": lambda entry, info: entry.video_id,
    "split": lambda entry, info: entry.split,
    "seconds": lambda entry, info: entry.num_samples / info.options["sample_rate"],
    "complete": lambda entry, info: entry.complete,
    "audio": lambda entry, info: "audio" in entry.modalities,
    "image": lambda entry, info: "image" in entry.modalities,
}
_COLUMNS = (*MEASURES, *_FACTS)
_OPERATIONS = (
    *(ast.And, ast.Or, ast.Not, ast.Invert, ast.USub, ast.UAdd),
    *(ast.Add, ast.Sub, ast.Mult, ast.Div),
)
_COMPARISONS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq, ast.In, ast.NotIn)


@dataclass(frozen=True)
class ClassCount:
    """Clips of a class, and how many of them are kept."""

    mid: str
    name: str
    clips: int
    kept: int


@dataclass(frozen=True)
class Filtered:
    """What a condition keeps of a shard set."""

    clips: int
    kept: int
    classes: tuple[ClassCount, ...]  # all of the set's


def filter_clips(shards: str, options: FilterOptions, on_progress: OnProgress = ignore) -> Filtered:
    """Write a selection of the clips that meet a condition. Decodes nothing.

    Args:
        shards: folder or URL prefix of a shard set that has been measured.
        options: the condition, and the selection's file.
        on_progress: called with progress: shards whose measures were read.

    Raises:
        UserError: the condition cannot be understood or no clip meets it, the set was not measured,
            or the file cannot be written.
    """
    names = names_in(options.where)
    info = read_dataset(shards)
    table = read_table(shards, info, {"video_id", *names}, on_progress)
    is_kept = meets(options.where, table)
    if not is_kept.any():
        raise UserError(
            f"{shards}: none of its {len(table)} clips meets {options.where!r}. Nothing is written."
        )
    write_selection(options.out, table["video_id"][is_kept])
    classes = len(info.labels)
    clips, kept = (_clips_per_class(rows, classes) for rows in (table, table[is_kept]))
    return Filtered(
        clips=len(table),
        kept=int(is_kept.sum()),
        classes=tuple(
            ClassCount(mid, name, clips[number], kept[number])
            for number, (mid, name) in enumerate(info.labels)
        ),
    )


def read_table(
    shards: str, info: DatasetInfo, names: Iterable[str], on_progress: OnProgress = ignore
) -> pd.DataFrame:
    """A row per clip with these columns, and its class numbers as `labels`.

    Raises:
        UserError: the set was not measured, or a file is missing or damaged.
    """
    columns: dict[str, list[Any]] = {name: [] for name in (*names, "labels")}
    on_shard = each("shard", on_progress, len(info.shards))
    for index, measures in read_measured(shards, info):
        for name, values in columns.items():
            if name == "labels":
                values += [entry.labels for entry in index.samples]
            elif name in _FACTS:
                values += [_FACTS[name](entry, info) for entry in index.samples]
            else:
                values += measures.columns[name]
        on_shard()
    return pd.DataFrame(columns)


def names_in(condition: str) -> frozenset[str]:
    """The columns that a condition names.

    A condition compares columns, numbers and texts, with arithmetic, `and`, `or`, `not` and `in`.
    Nothing else gets to pandas, which would look up variables and call functions.

    Raises:
        UserError: it has another part, or names a column that does not exist.
    """
    try:
        tree = ast.parse(condition.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UserError(
            f"--where {condition!r}: cannot be read ({error}). Write a condition such as "
            "'rms_db > -50 and stillness < 0.98'."
        ) from error
    names = frozenset(_names(tree, condition))
    if not names:
        raise UserError(f"--where {condition!r}: names no measure. Known names: {_listed()}.")
    return names


def _names(node: ast.AST, condition: str) -> Iterable[str]:
    """The names in an allowed expression, which never makes new texts."""
    parts: Sequence[ast.AST]
    match node:
        case ast.Name():
            if node.id not in _COLUMNS:
                near = difflib.get_close_matches(node.id, _COLUMNS, 1)
                hint = f" Did you mean {near[0]}?" if near else ""
                raise UserError(
                    f"--where {condition!r}: unknown name {node.id!r}.{hint} "
                    f"Known names: {_listed()}."
                )
            return [node.id]
        case ast.Constant(value=bool() | int() | float()):
            return []
        case ast.BoolOp(op=op, values=parts) if isinstance(op, _OPERATIONS):
            pass
        case ast.UnaryOp(op=op, operand=part) if isinstance(op, _OPERATIONS):
            parts = [part]
        case ast.BinOp(op=op, left=left, right=right) if isinstance(op, _OPERATIONS):
            parts = [left, right]
        case ast.BinOp(op=ast.BitAnd() | ast.BitOr(), left=left, right=right):
            # For pandas these are `and` and `or`, also in precedence; Python takes a text for
            # their operand in `split == "a" & seconds > 1`.
            parts = [part for part in (left, right) if not _is_text(part)]
        case ast.Compare(ops=ops) if all(isinstance(op, _COMPARISONS) for op in ops):
            sides = (node.left, *node.comparators)
            parts = [part for side in sides for part in _members(side) if not _is_text(part)]
        case _:
            raise UserError(
                f"--where {condition!r}: {ast.unparse(node)!r} is not allowed. Compare columns, "
                "numbers and quoted texts, with + - * /, and, or, not, in."
            )
    return [name for part in parts for name in _names(part, condition)]


def _members(node: ast.expr) -> Sequence[ast.expr]:
    return node.elts if isinstance(node, (ast.List, ast.Tuple)) else [node]


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _listed() -> str:
    return ", ".join(_COLUMNS)


def meets(condition: str, table: pd.DataFrame) -> pd.Series[bool]:
    """Which rows meet a condition that `names_in` has understood.

    Raises:
        UserError: it compares a text with a number, or is not a condition.
    """
    try:
        found = table.eval(condition.strip(), engine="python")
    except (TypeError, ValueError, NotImplementedError, MemoryError) as error:
        raise UserError(
            f"--where {condition!r}: cannot be computed ({error}). Compare numbers with numbers, "
            "and texts with quoted texts."
        ) from error
    if not isinstance(found, pd.Series) or found.dtype != bool:
        raise UserError(
            f"--where {condition!r}: is not a condition. Compare it with something, as in "
            "'stillness < 0.98'."
        )
    return found


def _clips_per_class(table: pd.DataFrame, classes: int) -> list[int]:
    labels = [label for row in table["labels"] for label in row]
    return np.bincount(np.array(labels, np.int64), minlength=classes).tolist()
