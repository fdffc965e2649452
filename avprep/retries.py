"""Trying again what failed in a way that may pass."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from avprep.errors import UserError

Result = TypeVar("Result")

_FIRST_WAIT = 0.5  # seconds before the second attempt


def attempts(retries: int, first_wait: float | None = None) -> Iterator[int]:
    """Count attempts from 0, waiting before each but the first, twice as long each time."""
    wait = _FIRST_WAIT if first_wait is None else first_wait
    for attempt in range(retries + 1):
        if attempt:  # not all clients of a server that was down at the same moment
            time.sleep(wait * 2 ** (attempt - 1) * random.uniform(0.75, 1.25))
        yield attempt


def with_retries(function: Callable[[], Result], retries: int) -> Result:
    """Call a function that reads from the network until it works.

    Raises:
        UserError, FileNotFoundError, PermissionError: at once, since trying again will not help.
        Exception: what the last attempt raised.
    """
    for attempt in attempts(retries):
        if attempt == retries:
            break
        try:
            return function()
        except (UserError, FileNotFoundError, PermissionError):
            raise
        except Exception:  # fsspec's back ends have no one type for "the network failed"
            continue
    return function()
