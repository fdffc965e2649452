"""JSON files with a digest of what they say as their last key.

A damaged file is told from a whole one, however a program such as `jq` has laid it out since. The
digest is of canonical JSON: keys sorted, ASCII only, no white space, whole numbers without a
fraction.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any


def sealed(content: Mapping[str, Any], indent: int | None = None) -> bytes:
    """An object as UTF-8 JSON with a last key `digest`.

    Args:
        content: JSON-able; a key `digest` is left out.
        indent: to lay it out for people; otherwise it is canonical JSON with line breaks.
    """
    content = {key: value for key, value in content.items() if key != "digest"}
    text = _in_lines(_parsed(json.dumps(content)))
    digest = _sha256(text.replace("\n", "").encode())
    if indent is not None:
        text = json.dumps(content, indent=indent, ensure_ascii=False)
    return f'{text.removesuffix("}").rstrip()},\n"digest": "{digest}"}}\n'.encode()


def unsealed(data: bytes) -> dict[str, Any]:
    """The object that was sealed; a float that is a whole number comes back as an int.

    Raises:
        ValueError: this is no such object, or it says something else than when it was sealed.
    """
    content = _parsed(data)
    if not isinstance(content, dict) or not data.endswith(b"}\n"):
        raise ValueError("it is cut short, or not an object")
    if content.pop("digest", None) not in _digests(data, content):
        raise ValueError("its digest is not that of its content")
    return content


def is_sealed(data: bytes) -> bool:
    """Whether a file still says what it said when it was sealed."""
    try:
        unsealed(data)
    except ValueError:
        return False
    return True


def _digests(data: bytes, content: Mapping[str, Any]) -> Iterator[str]:
    """The digests that a whole file may have, the cheapest first."""
    body = data.rpartition(b',\n"digest": ')[0]
    yield _sha256(body.replace(b"\n", b"") + b"}")  # canonical JSON in lines, as it was written
    yield _sha256(_canonical(content).encode())
    yield _sha256(body)  # what older files were sealed with


_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


def _in_lines(content: Mapping[str, Any]) -> str:
    """Canonical JSON with a line per key, and per item of a list."""
    lines = []
    for key, value in sorted(content.items()):
        items = ",\n".join(map(_canonical, value)) if isinstance(value, list) else ""
        lines.append(f"{_canonical(key)}:" + (f"[\n{items}\n]" if items else _canonical(value)))
    return "{" + ",\n".join(lines) + "}"


def _parsed(text: str | bytes) -> Any:
    try:
        return json.loads(text, parse_float=_number)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _number(literal: str) -> float:
    """5.0 as 5, as some programs write it."""
    value = float(literal)
    return int(value) if value.is_integer() else value


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
