"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from avprep.errors import UserError
from avprep.options import DecodeOptions, IsolationOptions, SampleOptions

if TYPE_CHECKING:  # what is needed only when work has begun
    from avprep.jobs import PoolOptions

Command = TypeVar("Command", bound=Callable[..., Any])


def decode_options(command: Command) -> Command:
    """Options that say how a clip is decoded."""
    defaults, limits = DecodeOptions(), IsolationOptions()
    for option in (
        click.option(
            "--memory-limit",
            type=click.FloatRange(min=0.25),
            default=limits.memory_limit,
            show_default=True,
            help="GiB that decoding one clip may take.",
        ),
        click.option(
            "--time-limit",
            type=click.FloatRange(min=0, min_open=True),
            default=limits.time_limit,
            show_default=True,
            help="Seconds that one clip may take.",
        ),
        click.option(
            "--decoder",
            type=click.Choice(["auto", "pyav", "ffmpeg"]),
            default=defaults.decoder,
            show_default=True,
            help="auto: PyAV, and ffmpeg + OpenCV for files that PyAV cannot read.",
        ),
        click.option(
            "--missing-audio",
            type=click.Choice(["fail", "silence"]),
            default=defaults.missing_audio,
            show_default=True,
            help="What a clip without an audio stream becomes.",
        ),
        click.option(
            "--incomplete",
            type=click.Choice(["keep", "fail"]),
            default=defaults.incomplete,
            show_default=True,
            help="What a clip becomes whose file holds less than it promises.",
        ),
        click.option(
            "--max-audio",
            type=click.FloatRange(min=1),
            default=defaults.max_audio,
            show_default=True,
            help="Seconds of sound that a sample holds at most, from the clip's start.",
        ),
        click.option(
            "--channels",
            type=click.Choice(["first", "mix"]),
            default=defaults.channels,
            show_default=True,
            help="Mono from the first channel, as published, or from all of them.",
        ),
        click.option(
            "--pixels",
            type=click.Choice(["square", "stored"]),
            default=defaults.pixels,
            show_default=True,
            help="Show oblong pixels as the file says, or as if they were square, as published.",
        ),
        click.option(
            "--frames",
            type=click.IntRange(min=1),
            default=defaults.frames,
            show_default=True,
            help="Frames a clip, evenly spaced over its first 10 s.",
        ),
    ):
        command = option(command)
    return command


def pool_options(command: Command) -> Command:
    """Options that say who does the work."""
    for option in (
        click.option(
            "--address",
            default="",
            help="Address of a running dask scheduler or ray cluster. [default: a local one]",
        ),
        click.option(
            "--backend",
            type=click.Choice(["local", "loky", "dask", "ray"]),
            default="local",
            show_default=True,
            help="Work on this machine (loky is its old name), or on a dask or ray cluster.",
        ),
        click.option(
            "--workers",
            type=click.IntRange(min=0),
            default=0,
            help="Jobs at a time. [default: one per core]",
        ),
    ):
        command = option(command)
    return command


def sample_options(
    options: dict[str, Any], audio: Literal["flac", "wav"] = "flac"
) -> SampleOptions:
    """`SampleOptions` from the values of `decode_options`."""
    names = (
        *("frames", "pixels", "channels", "max_audio", "missing_audio", "incomplete", "decoder"),
    )
    return SampleOptions(DecodeOptions(**{name: options[name] for name in names}), audio)


def worker_pool(options: dict[str, Any]) -> PoolOptions:
    """`PoolOptions` from the values of `pool_options`."""
    from avprep.jobs import PoolOptions

    return PoolOptions(options["workers"], options["backend"], options["address"])


def limit_options(options: dict[str, Any]) -> IsolationOptions:
    """`IsolationOptions` from the values of `decode_options`."""
    return IsolationOptions(options["time_limit"], options["memory_limit"])


def incomplete_line(count: int) -> str:
    """What summaries say of samples whose files hold less than they promise."""
    return f"incomplete: {count} (files that hold less than they promise, such as cut downloads)"


def parse_part(text: str) -> tuple[int, int]:
    """`"2/8"` → (2, 8).

    Raises:
        UserError: not of the form k/n with 1 ≤ k ≤ n.
    """
    part, slash, parts = text.partition("/")
    if slash and part.isdigit() and parts.isdigit() and 1 <= int(part) <= int(parts):
        return int(part), int(parts)
    raise UserError(f"--part {text!r}: give k/n with 1 ≤ k ≤ n, for example --part 3/16.")


_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}


def parse_size(text: str) -> int:
    """`"500MB"` → 500,000,000; also `1.5GB`, `256MiB`, and plain bytes.

    Raises:
        UserError: not a size, or none above zero.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]I?)?B?", text.strip().upper())
    size = int(float(match[1]) * _UNITS[match[2] or ""]) if match else 0
    if size <= 0:
        raise UserError(f"--shard-size {text!r}: give a size such as 500MB or 1GB.")
    return size
