"""JSON files with a digest of what they say as their last key.

A damaged file is told from a whole one, however a program such as `jq` has laid it out since.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any


def sealed(document: str) -> bytes:
    """The JSON text of an object as UTF-8, with a last key `digest`."""
    body = document.rstrip().removesuffix("}").rstrip()
    return f'{body},\n"digest": "{_digest(_parse(document))}"}}\n'.encode()


def unsealed(data: bytes) -> dict[str, Any]:
    """The object that was sealed; a float that is a whole number comes back as an int.

    Raises:
        ValueError: this is no such object, or it says something else than when it was sealed.
    """
    document = _parse(data)
    if not isinstance(document, dict) or not data.endswith(b"}\n"):
        raise ValueError("it is cut short, or not an object")
    digest = document.pop("digest", None)
    if digest != _digest(document) and digest != _digest_of_bytes(data):
        raise ValueError("its digest is not that of its content")
    return document


def is_sealed(data: bytes) -> bool:
    """Whether a file still says what it said when it was sealed."""
    try:
        unsealed(data)
    except ValueError:
        return False
    return True


def _digest(document: Mapping[str, Any]) -> str:
    content = {key: value for key, value in document.items() if key != "digest"}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _digest_of_bytes(data: bytes) -> str:
    """What older files were sealed with."""
    return hashlib.sha256(data.rpartition(b',\n"digest": ')[0]).hexdigest()


def _number(literal: str) -> float:
    """5.0 as 5, as some programs write it."""
    value = float(literal)
    return int(value) if value.is_integer() else value


_parse = functools.partial(json.loads, parse_float=_number)
