"""Every failure of reading or writing names the place and says what to do."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from avprep.errors import UserError, WorkFailed

_NOT_WRITABLE = frozenset(
    (errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR, errno.ENOENT)
)
_FREE_SPACE = "Free some space and run the same command again; what is finished stays."
_ADVICE = {
    errno.ENOSPC: _FREE_SPACE,
    errno.EDQUOT: _FREE_SPACE,
    errno.EFBIG: "Raise the limit (`ulimit -f`) and run the same command again.",
    errno.EISDIR: "Move this folder away, or choose another place.",
}


@contextlib.contextmanager
def writing_to(place: str | Path) -> Iterator[None]:
    """Errors of writing to a place say so, with what to do.

    Raises:
        UserError: it cannot be written to at all.
        WorkFailed: it could, until the disk was full or the like.
    """
    try:
        yield
    except (UserError, WorkFailed):
        raise
    except OSError as error:
        what = error.strerror or str(error) or type(error).__name__
        # fsspec's own errors have a type and no number.
        refused = isinstance(error, PermissionError | FileNotFoundError)
        number = error.errno or 0
        if refused or number in _NOT_WRITABLE:
            advice = _ADVICE.get(number, "Choose a place that you may write to.")
            raise UserError(f"{place}: cannot be written to ({what}). {advice}") from error
        advice = _ADVICE.get(number, "Run the same command again; what is finished stays.")
        raise WorkFailed(f"{place}: cannot be written to ({what}). {advice}") from error
    except Exception as error:
        raise _unreachable(place, error) from error


@contextlib.contextmanager
def reading_from(url: str | Path) -> Iterator[None]:
    """Errors of reading from a store name the place, whatever type the store gives them.

    Raises:
        FileNotFoundError, IsADirectoryError: the store was reached and has no such file.
        UserError: the store refuses access, which no later try changes.
        WorkFailed: no credentials, no such host, an outage.
    """
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, UserError, WorkFailed):
        raise
    except PermissionError as error:
        raise UserError(f"{url}: access is refused ({error}). Check your credentials.") from error
    except Exception as error:
        raise _unreachable(url, error) from error


def _unreachable(place: str | Path, error: Exception) -> WorkFailed:
    """Object stores have error types of their own."""
    return WorkFailed(
        f"{place}: cannot be reached ({type(error).__name__}: {error}). Check the address and your "
        "credentials and run the same command again; what is finished stays."
    )
