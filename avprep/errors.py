"""What can go wrong, as types: raised where the fact is known, put into words once at the CLI."""

from __future__ import annotations

from dataclasses import dataclass

# The closed list of reasons a clip can fail for. Documented in docs/faults.md.
CAUSES = (
    "missing",  # no file at that path
    "unreadable",  # there, but permission, I/O error, or not a regular file
    "empty",  # zero bytes
    "garbage",  # not a media file at all, or one that only names others
    "truncated",  # cut before its first frame or its index; anywhere with --incomplete fail
    "protected",  # encrypted (DRM)
    "no-video",  # no video stream
    "no-audio",  # no audio stream, or one without a single sample
    "no-frames",  # a video stream without one decodable frame
    "too-short",  # shorter than one fbank window, or the segment lies past the end
    "timeout",  # the time limit for one clip ran out
    "crash",  # the worker process died (segmentation fault, …)
    "out-of-memory",  # the worker was killed for, or reported, lack of memory
    "duplicate-id",  # a second clip with the same video_id
    "bad-name",  # a name that no file can have: too long, or with a zero byte
    "too-large",  # takes more scratch space than one video may
    "unreachable",  # the network or the server failed, again and again
)
# Those that may pass by themselves: the same command tries such clips again.
TRANSIENT = frozenset(("unreachable",))


class ReportedError(Exception):
    """An error that ends a command. Each argument is one line of its message.

    Lines are arguments of their own because a file's name may hold a line break, which the command
    line escapes.
    """

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


class UserError(ReportedError):
    """The user's input is wrong. The message says what, where and what to do. Exit code 2."""


class WorkFailed(ReportedError):
    """The input was fine and the work still failed, or too many clips failed. Exit code 1."""


# How PyTorch, which has no type for it on CPUs, and the system say that memory ran out.
_MEMORY_WORDS = ("out of memory", "can't allocate memory", "Cannot allocate memory")


def out_of_memory(error: BaseException) -> str:
    """What an error says of memory that ran out, of this machine or a GPU; empty for others."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    named = [line for line in lines if any(words in line for words in _MEMORY_WORDS)]
    if not named and not isinstance(error, MemoryError):
        return ""
    # PyTorch's text continues with its allocator; a loading process's error ends with its cause.
    return ". ".join([*named, lines[-1]][0].split(". ")[:2]).rstrip(".")


@dataclass(frozen=True)
class Unreadable:
    """Stands in the place of what could not be read, where one failure must not end the rest."""

    cause: str  # one of `CAUSES`
    detail: str  # one line for a person: what was found

    @classmethod
    def of(cls, error: OSError) -> Unreadable:
        """What is left of an error, when something else stands for the place."""
        cause = "missing" if isinstance(error, FileNotFoundError) else "unreadable"
        return cls(cause, error.strerror or str(error))


class DecodeError(Exception):
    """A clip that cannot become a sample.

    Args:
        cause: one of `CAUSES`.
        detail: one line for a person: what was found.
    """

    def __init__(self, cause: str, detail: str) -> None:
        if cause not in CAUSES:
            raise ValueError(f"unknown failure cause {cause!r}; known: {', '.join(CAUSES)}")
        super().__init__(cause, detail)
        self.cause = cause
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.cause}: {self.detail}"

    @property
    def outcome(self) -> Unreadable:
        """The same as a value."""
        return Unreadable(self.cause, self.detail)
