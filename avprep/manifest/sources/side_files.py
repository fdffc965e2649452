"""Labels from a small file beside each video, as data sets in tars have them: KEY.cls, KEY.json."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from avprep import storage
from avprep.clips import Scan, VideoFile
from avprep.csvfile import first_of, shown
from avprep.errors import UserError
from avprep.labels import LabelSet, label_set_for
from avprep.options import LabelSource
from avprep.wording import counted

_MOST_NUMBERED = 100_000  # classes that are numbers; a greater one is not the number of a class


def labels_beside(
    files: Sequence[VideoFile], source: LabelSource, scan: Scan
) -> tuple[list[list[str]], list[str]]:
    """The names of each video's classes, and remarks for a person.

    Args:
        files: the videos.
        source: which file beside a video has its classes, and where in it.
        scan: what was kept of archives.

    Raises:
        UserError: no file has any, perhaps because the key is misspelled.
    """
    labels: list[list[str]] = []
    unread: list[str] = []
    keys: Counter[str] = Counter()
    for file in files:
        beside = storage.beside(file.video, source.suffix)
        text = scan.texts.get(beside)
        if text is None and not storage.is_chained(beside):
            text = storage.read_if_there(beside)
        try:
            value = _value_in(text, source, keys)
        except ValueError:
            unread.append(beside)
            value = None
        labels.append(_names_in(value))
    if not any(labels):
        have = f"; their keys are {', '.join(sorted(keys)[:20])}" if keys else ""
        raise UserError(
            f"--label-from {source}: no video has such a label. Looked for files such as "
            f"{storage.beside(files[0].video, source.suffix)}{have}."
        )
    remarks = []
    if unread:
        remarks.append(
            f"{counted(len(unread), 'file')} with labels cannot be read: {first_of(unread)}"
        )
    return labels, remarks


def numbered_classes(
    classes: Sequence[Sequence[str]], known: LabelSet | None, where: object
) -> tuple[LabelSet, dict[str, str]]:
    """The label set of the videos' classes, and the mid of each name; see `label_set_for`.

    What is written as a number is the class of that number.

    Raises:
        UserError: the known label set lacks a class.
    """
    names = {name for several in classes for name in several}
    numbers = {name: int(name) for name in names if name.isascii() and name.isdigit()}
    last = max(numbers.values(), default=0)
    if known is None and numbers.keys() == names and last < _MOST_NUMBERED:
        mids = tuple(map(str, range(last + 1)))
        known = LabelSet(mids, mids)
    by_number = {
        name: known.mids[number]
        for name, number in numbers.items()
        if known is not None and known.resolve(name) is None and number < len(known)
    }
    labels, mids_of = label_set_for(names - by_number.keys(), known, where)
    return labels, mids_of | by_number


def _value_in(text: bytes | None, source: LabelSource, keys: Counter[str]) -> Any:
    """What a file says, or the value of the key in it.

    Raises:
        ValueError: it is not UTF-8, or not a JSON object.
    """
    if text is None:
        return None
    words = text.decode("utf-8-sig")
    if source.file != "json":
        return words
    entry = json.loads(words)
    if not isinstance(entry, dict):
        raise ValueError(shown(words))
    keys.update(entry.keys())
    return entry.get(source.key)


def _names_in(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    texts = (str(one).strip() for one in values if isinstance(one, str | int | float))
    return list(dict.fromkeys(filter(None, texts)))
