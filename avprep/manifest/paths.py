"""Moving a manifest's paths to another place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from avprep.clips import Clip
from avprep.errors import UserError
from avprep.storage import is_chained, is_url

_PATHS = ("video", "wav", "video_path")


@dataclass(frozen=True)
class NewRoot:
    """Paths below `old` go below `new`. An empty `old` is that of relative paths."""

    old: str
    new: str

    @classmethod
    def parse(cls, text: str) -> NewRoot:
        """`OLD=NEW`.

        Raises:
            UserError: not of this form.
        """
        old, equals, new = text.partition("=")
        if not equals or not (old or new):
            raise UserError(
                f"--root {text!r}: give OLD=NEW, for example --root videos=/data/videos."
            )
        return cls(old.rstrip("/") or old[:1], new)

    def apply(self, path: str) -> str | None:
        """The new path; None if `path` is not below `old`. Files in an archive move with it."""
        if is_chained(path):
            member, _, archive = path.rpartition("::")
            moved = self.apply(archive)
            return None if moved is None else f"{member}::{moved}"
        if not self.old:
            rest = None if path.startswith("/") or is_url(path) else path
        elif path == self.old:
            rest = ""
        else:
            below = path.startswith(self.old if self.old.endswith("/") else f"{self.old}/")
            rest = path[len(self.old) :].lstrip("/") if below else None
        if rest is None:
            return None
        if not self.new or not rest:
            return self.new or rest
        return f"{self.new.rstrip('/')}/{rest}"


def rerooted(clips: Iterable[Clip], roots: Sequence[NewRoot]) -> Iterator[Clip]:
    """The clips with their paths below new roots; the first root that fits a path is taken.

    Raises:
        UserError: after the last clip, if a root fitted no path, which means that it is misspelled.
    """
    used: set[NewRoot] = set()
    example = ""
    for clip in clips:
        changes: dict[str, Any] = {}
        for name in _PATHS:
            path = getattr(clip, name)
            example = example or path
            for root in roots:
                moved = root.apply(path) if path else None
                if moved is not None:
                    changes[name] = moved
                    used.add(root)
                    break
        yield replace(clip, **changes)
    for root in roots:
        if root not in used:
            raise UserError(
                f"--root {root.old}={root.new}: no path is below {root.old!r}; "
                f"paths look like {example!r}."
            )
