"""Real processes of `cavmae …`, forked from one that has loaded PyTorch, which takes seconds."""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.loaded"])


def start(
    *words: object,
    call: Callable[[], object] | None = None,
    out: Path = Path(os.devnull),
    errors: Path = Path(os.devnull),
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> BaseProcess:
    """Start `cavmae …`.

    Args:
        words: of the command line, after `cavmae`.
        call: what to call in place of the command's entry point.
        out: the file that standard output is appended to.
        errors: the same of the errors.
        cwd: the folder to start in.
        environment: added to that of this process.
    """
    place = {**os.environ, **(environment or {})}
    process = _CONTEXT.Process(
        target=_run, args=([*map(str, words)], call, out, errors, cwd, place)
    )
    process.start()
    return process


def _run(
    words: list[str],
    call: Callable[[], object] | None,
    out: Path,
    errors: Path,
    cwd: Path | None,
    environment: dict[str, str],
) -> None:
    from cavmae.cli import main

    for stream, path in ((sys.stdout, out), (sys.stderr, errors)):
        with path.open("ab") as file:
            os.dup2(file.fileno(), stream.fileno())
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # found again where the environment says
    # Its own processes start as usual: those of a fork server would outlive one that is killed.
    multiprocessing.set_start_method(None, force=True)
    if cwd is not None:
        os.chdir(cwd)
    sys.argv = ["cavmae", *words]
    (call or main)()


def rank_environments(ranks: int) -> list[dict[str, str]]:
    """What torchrun gives to each rank."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        meeting = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free.getsockname()[1])}
    meeting["WORLD_SIZE"] = str(ranks)
    return [{**meeting, "RANK": rank, "LOCAL_RANK": rank} for rank in map(str, range(ranks))]


def on_ranks(
    ranks: int,
    *words: object,
    call: Callable[[], object] | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `cavmae …` on ranks, or what is to be called instead; their output is taken together."""
    with tempfile.TemporaryDirectory() as folder:
        out, errors = Path(folder, "out"), Path(folder, "errors")
        started = [
            start(*words, call=call, out=out, errors=errors, cwd=cwd, environment=place)
            for place in rank_environments(ranks)
        ]
        for process in started:
            process.join(600)
        code = next((process.exitcode for process in started if process.exitcode != 0), 0)
        return subprocess.CompletedProcess([*words], code, out.read_text(), errors.read_text())
