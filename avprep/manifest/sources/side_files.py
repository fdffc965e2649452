"""Labels from a small file beside each video, as data sets in tars have them: KEY.cls, KEY.json."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from avprep import storage
from avprep.clips import Scan, VideoFile
from avprep.errors import UserError
from avprep.labels import LabelSet, label_set_for
from avprep.options import LabelSource
from avprep.wording import counted, first_of

_MOST_NUMBERED = 100_000  # classes that are numbers; a greater one is not the number of a class


class LabelReader:
    """Reads the names of classes in the files beside videos.

    Attributes:
        source: which files these are, and where in them the classes are.
        keys: how often each field occurred, of JSON.
    """

    def __init__(self, source: LabelSource) -> None:
        self.source = source
        self.keys: Counter[str] = Counter()

    def __call__(self, text: bytes) -> list[str] | None:
        """The names in a file; None if it cannot be read."""
        try:
            words = text.decode("utf-8-sig")
            value = json.loads(words) if self.source.file == "json" else words
        except (ValueError, RecursionError):
            return None
        if self.source.file == "json":
            if not isinstance(value, dict):
                return None
            self.keys.update(value.keys())
            value = value.get(self.source.key)
        values = value if isinstance(value, list) else [value]
        names = (str(one).strip() for one in values if isinstance(one, str | int | float))
        return list(dict.fromkeys(filter(None, names)))


def labels_beside(
    files: Sequence[VideoFile], read: LabelReader, scan: Scan
) -> tuple[list[list[str]], list[str]]:
    """The names of each video's classes, and remarks for a person.

    Args:
        files: the videos.
        read: reads a file beside a video.
        scan: what it read in archives.

    Raises:
        UserError: no file has any, perhaps because the field is misspelled.
    """
    labels: list[list[str]] = []
    unread: list[str] = []
    for file in files:
        beside = storage.beside(file.video, read.source.suffix)
        names: list[str] | None = []
        if beside in scan.kept:
            names = scan.kept[beside]
        elif not storage.is_chained(beside):
            text = storage.read_if_there(beside)
            names = [] if text is None else read(text)
        if names is None:
            unread.append(beside)
        labels.append(names or [])
    if not any(labels):
        have = f"; their fields are {', '.join(sorted(read.keys)[:20])}" if read.keys else ""
        raise UserError(
            f"--label-from {read.source}: no video has such a label. Looked for files such as "
            f"{storage.beside(files[0].video, read.source.suffix)}{have}."
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
