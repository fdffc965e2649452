"""Jobs on a dask or ray cluster: the running one at an address, or a local one for their time.

Both get jobs a few at a time, so that a manifest of millions of clips is never sent at once.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from typing import Any, TypeVar
from urllib.parse import urlsplit

from avprep.errors import UserError, WorkFailed
from avprep.processes import available_cores, held

Job = TypeVar("Job")
Result = TypeVar("Result")

_CONNECT_SECONDS = 10.0
# Ctrl-C reaches every process of the terminal; this one ends the others in order.
_DEAF_TO_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
_ADVICE = "Is there enough memory? Run the same command again; what is finished stays."


def run_on_dask(
    work: Callable[[Job], Result], jobs: Sequence[Job], workers: int, address: str
) -> Iterator[Result]:
    """Yield `work(job)` for every job, in the order they finish.

    Args:
        work: importable where the workers are.
        jobs: what to do.
        workers: of a local cluster, or jobs at a time on a running one; 0 for all it can do.
        address: of a running cluster's scheduler; empty starts a local one.

    Raises:
        UserError: dask is not installed, or no cluster with a worker is at the address.
        WorkFailed: workers died repeatedly.
    """
    try:
        from distributed import Client, KilledWorker, LocalCluster, as_completed
    except ImportError as error:
        raise UserError(
            "--backend dask needs dask. Run `pip install 'avprep-cavmae[dask]'`."
        ) from error
    with ExitStack() as stack:
        if address:
            _check_answers(address, "dask scheduler")
            client = stack.enter_context(Client(address))
        else:
            with held(signal.SIGINT):
                cluster = LocalCluster(
                    n_workers=workers or available_cores(),
                    threads_per_worker=1,
                    dashboard_address=None,
                    silence_logs=logging.CRITICAL,
                    preload=_DEAF_TO_CTRL_C,
                )
            client = stack.enter_context(Client(stack.enter_context(cluster)))
        waiting, pending = iter(jobs), as_completed()

        def submit() -> None:
            threads = max(1, sum(client.nthreads().values()))
            more = islice(waiting, max(0, _at_once(workers, address, threads) - pending.count()))
            pending.update([client.submit(work, job, pure=False) for job in more])

        submit()
        try:
            client.wait_for_workers(1, _CONNECT_SECONDS)
        except asyncio.TimeoutError as error:
            raise UserError(
                f"--address {address}: this dask cluster has no worker. Start some."
            ) from error
        try:
            for done in pending:
                result = done.result()
                submit()
                yield result
        except KilledWorker as error:
            raise WorkFailed(
                f"workers of the dask cluster died repeatedly at the same job. {_ADVICE}"
            ) from error


def run_on_ray(
    work: Callable[[Job], Result], jobs: Sequence[Job], workers: int, address: str
) -> Iterator[Result]:
    """The same on a ray cluster; see `run_on_dask`."""
    try:
        import ray
        from ray.exceptions import RayError, RayTaskError
    except ImportError as error:
        raise UserError(
            "--backend ray needs ray. Run `pip install 'avprep-cavmae[ray]'`."
        ) from error
    is_ours = not ray.is_initialized()
    if is_ours:
        _check_answers(address, "ray cluster")
        ray.init(
            address=address or "local",
            num_cpus=None if address else workers or available_cores(),
            include_dashboard=None if address else False,
            log_to_driver=False,
            configure_logging=False,
        )
    try:
        shared = ray.put(work)
        run: Any = ray.remote(_call)
        waiting = iter(jobs)
        cores = int(ray.cluster_resources().get("CPU", 1))
        at_once = _at_once(workers, address, cores)
        pending = [run.remote(shared, job) for job in islice(waiting, at_once)]
        while pending:
            (done,), pending = ray.wait(pending)
            result = ray.get(done)
            pending += [run.remote(shared, job) for job in islice(waiting, 1)]
            yield result
    except RayTaskError as error:
        raise error.cause from error  # what our own code raised, without ray's traceback in it
    except RayError as error:
        raise WorkFailed(
            f"workers of the ray cluster died ({type(error).__name__}). {_ADVICE}"
        ) from error
    finally:
        if is_ours:
            ray.shutdown()


def _call(work: Callable[[Job], Result], job: Job) -> Result:
    return work(job)


def _at_once(workers: int, address: str, places: int) -> int:
    """Jobs that a cluster has at a time: one ahead for each place, unless less is asked for."""
    return workers if workers and address else 2 * places


def _check_answers(address: str, what: str) -> None:
    """Find out in seconds whether anybody listens; the clients themselves try for minutes.

    Raises:
        UserError: nobody does.
    """
    place = urlsplit(address if "://" in address else f"//{address}")
    try:
        if place.hostname and place.port:
            socket.create_connection((place.hostname, place.port), _CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise UserError(f"--address {address}: no {what} answers there ({error}).") from error
