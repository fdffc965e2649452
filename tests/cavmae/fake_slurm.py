"""Stands for Slurm on a machine without it: what its documentation and source say that it does.

`python -m tests.cavmae.fake_slurm [srun's options] COMMAND…` is srun on one node. Beside Slurm's
variables it obeys two: SRUN_LOG, a file to which each step adds a line of JSON, and SRUN_STOP, a
glob; when it matches a file, every task gets SIGTERM, as `#SBATCH --signal=TERM@300` arranges.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

KILL_WAIT = 30.0  # as Slurm's default: seconds between SIGTERM and SIGKILL


def job_variables(script: Path, flags: Sequence[str]) -> dict[str, str]:
    """The variables in which sbatch tells a script of its #SBATCH lines and its flags."""
    wishes = re.findall(r"^#SBATCH --([a-z-]+)=(\S+)", script.read_text(), re.M)
    asked = {**dict(wishes), **dict(flag.removeprefix("--").split("=") for flag in flags)}
    nodes = int(asked.get("nodes", "1"))
    tasks = int(asked.get("ntasks", nodes * int(asked.get("ntasks-per-node", "1"))))
    variables = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": str(tasks)}
    for name in ("cpus-per-task", "gpus-per-task", "ntasks-per-node"):
        if name in asked:
            variables[f"SLURM_{name.upper().replace('-', '_')}"] = asked[name]
    if "array" in asked:
        variables["SLURM_ARRAY_TASK_MAX"] = re.split(r"[-,]", asked["array"])[-1]
    return variables


def parse_options(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """srun's options and the command after them."""
    count = next(n for n, word in enumerate(words) if not word.startswith("--"))
    options = dict(word.removeprefix("--").split("=", 1) for word in words[:count])
    return options, list(words[count:])


def run_step(options: dict[str, str], command: list[str]) -> int:
    """Run a step; returns srun's exit code."""
    tasks = int(os.environ["SLURM_NTASKS"])
    # Not inherited from the job since 22.05. The site's KillOnBadExit is 1, which a flag overrides.
    cpus = int(options.get("cpus-per-task", "1"))
    kill_on_bad_exit = options.get("kill-on-bad-exit", "1") == "1"
    patience = float(options.get("wait", "0")) or float("inf")
    if log := os.environ.get("SRUN_LOG"):
        with Path(log).open("a") as file:
            facts = {"tasks": tasks, "cpus": cpus, "command": command, **options}
            file.write(json.dumps(facts) + "\n")
    running = [_start_task(command, number, tasks, cpus) for number in range(tasks)]
    signal.signal(signal.SIGTERM, lambda *_: _send(running, signal.SIGKILL))
    signal.signal(signal.SIGUSR1, lambda *_: _send(running, signal.SIGUSR1))
    awaited = os.environ.get("SRUN_STOP")
    deadline = float("inf")
    killing = False
    while any(task.poll() is None for task in running):
        codes = [task.returncode for task in running if task.returncode is not None]
        if awaited and any(Path("/").glob(awaited.lstrip("/"))):
            _send(running, signal.SIGTERM)
            awaited = None
        if codes:
            deadline = min(deadline, time.monotonic() + patience)
        if not killing and (time.monotonic() > deadline or (kill_on_bad_exit and any(codes))):
            _send(running, signal.SIGTERM)
            killing, deadline = True, time.monotonic() + KILL_WAIT
        if killing and time.monotonic() > deadline:
            _send(running, signal.SIGKILL)
        time.sleep(0.02)
    codes = [task.returncode for task in running]
    print(f"srun: exit codes {codes}", file=sys.stderr)
    return 128 - min(codes) if min(codes) < 0 else max(codes)


def _start_task(command: list[str], number: int, tasks: int, cpus: int) -> subprocess.Popen[bytes]:
    place = {
        "SLURM_STEP_NUM_TASKS": str(tasks),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_PROCID": str(number),
        "SLURM_LOCALID": str(number),
        "SLURM_CPUS_PER_TASK": str(cpus),
    }
    return subprocess.Popen(command, env={**os.environ, **place}, start_new_session=True)


def _send(running: list[subprocess.Popen[bytes]], number: int) -> None:
    """Signal every process of the tasks that run."""
    for task in running:
        if task.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(task.pid, number)


if __name__ == "__main__":
    sys.exit(run_step(*parse_options(sys.argv[1:])))
