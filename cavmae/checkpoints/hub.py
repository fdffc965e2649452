"""Models on the Hugging Face hub: `hf://org/name[@revision]` → a local file of weights.

huggingface_hub is imported when the hub is asked for, and not before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from avprep.errors import ReportedError, UserError, WorkFailed

WEIGHTS = "model.safetensors"  # as every repository on the hub calls them
_URL = re.compile(r"hf://?([^/@\s]+/[^/@\s]+?)/?(?:@(\S+))?")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_ACCESS = "log in with `hf auth login`, or set HF_TOKEN to a token that has access"


def is_hub_url(place: str | Path) -> bool:
    """Whether a checkpoint is one on the hub; a `Path` of its URL has one slash less."""
    return str(place).startswith("hf:/")


def download(url: str, revision: str | None = None, **options: Any) -> Path:
    """The weights of a model on the hub, as a file in the hub library's cache.

    Args:
        url: `hf://org/name[@revision]`.
        revision: branch, tag or commit, where the URL has none.
        options: others of `huggingface_hub.hf_hub_download`, such as `token` and `cache_dir`.

    Raises:
        UserError: not such a URL, no such model or revision, no access, or huggingface_hub is not
            installed.
        WorkFailed: the hub does not answer, and the file is not in the cache.
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise UserError(f"{url}: is not of the form hf://org/name or hf://org/name@revision.")
    repo, named = match.groups()
    if named and revision not in (None, named):
        raise UserError(f"{url}: names another revision than {revision}; give one of them.")
    revision = named or revision
    with hub_errors(url, repo, revision):
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(repo, WEIGHTS, revision=revision, **options))


@contextmanager
def hub_errors(where: str, repo: str, revision: str | None = None) -> Iterator[None]:
    """Put what huggingface_hub raises in the block into one line.

    Args:
        where: begins the line.
        repo: `org/name`.
        revision: that is asked for.

    Raises:
        UserError: huggingface_hub is not installed, or the hub refuses.
        WorkFailed: the hub does not answer.
    """
    try:
        yield
    except ReportedError:
        raise
    except ImportError as error:
        raise UserError(
            f"{where}: the hub needs huggingface_hub. Run `pip install 'avprep-cavmae[hub]'`."
        ) from error
    except Exception as error:  # its own errors, those of its HTTP library, and of the disk
        failure, words = _in_words(error, repo, revision)
        raise failure(f"{where}: {words}") from error


def _in_words(
    error: BaseException, repo: str, revision: str | None
) -> tuple[type[ReportedError], str]:
    from huggingface_hub import constants, errors

    cause = error.__cause__
    if isinstance(error, errors.HFValidationError):
        return UserError, f"cannot be a name on the hub ({_line(error)})."
    if isinstance(error, errors.GatedRepoError):
        page = f"{constants.ENDPOINT}/{repo}"
        return UserError, f"its owner grants access on request: ask at {page}, then {_ACCESS}."
    if isinstance(error, errors.RepositoryNotFoundError):
        return UserError, (
            f"no such model on {constants.ENDPOINT}, or a private one. Check the name; if it is "
            f"private, {_ACCESS}."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return UserError, f"has no revision {revision}. Give a branch, a tag or a whole commit."
    if isinstance(error, ValueError) and isinstance(cause, errors.BadRequestError):
        return UserError, f"{_line(error)}."  # about the card, for one
    if isinstance(cause, errors.HfHubHTTPError):
        return _in_words(cause, repo, revision)
    if isinstance(error, errors.LocalEntryNotFoundError):
        absent = f"{WEIGHTS} is not in the cache {constants.HF_HUB_CACHE}"
        if cause is None or isinstance(cause, errors.OfflineModeIsEnabled):
            return UserError, f"{absent}, and the hub library is offline. Load it once online."
        return WorkFailed, (
            f"{constants.ENDPOINT} cannot be reached ({_line(cause)}), and {absent}. Check the "
            "network and HF_ENDPOINT, and try again."
        )
    if isinstance(error, errors.EntryNotFoundError):
        return UserError, f"holds no {WEIGHTS}{_pickles_in(repo, revision)}."
    if not isinstance(error, errors.HfHubHTTPError):
        return WorkFailed, (
            f"{_line(error)}. If {constants.ENDPOINT} cannot be reached, check the network and "
            "HF_ENDPOINT, and try again."
        )
    status = error.response.status_code
    said = _line(error.server_message or error.response.reason_phrase)
    answer = f"{constants.ENDPOINT} answers {status}, {said}"
    if status in (401, 403):
        return UserError, f"{answer}. Check the name, and {_ACCESS}."
    return WorkFailed, f"{answer}."


def _pickles_in(repo: str, revision: str | None) -> str:
    """What to say about the weights that a repository has instead."""
    from huggingface_hub import HfApi

    try:
        names = HfApi().list_repo_files(repo, revision=revision)
    except Exception:  # that the weights are not there is known without it
        names = []
    if pickles := sorted(name for name in names if name.endswith(_PICKLES)):
        return f"; {pickles[0]} may hold code and is not read. Ask for the weights as safetensors"
    return ". Check the name"


def _line(error: BaseException | str) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
