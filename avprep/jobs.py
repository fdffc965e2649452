"""Run independent jobs on the cores of this machine or of a cluster, through joblib.

Results come back as they finish. A worker that dies takes only the jobs in flight with it: the
pool is started again and those jobs are done anew.
"""

from __future__ import annotations

import functools
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from multiprocessing import resource_tracker
from typing import Any, TypeVar
from urllib.parse import urlsplit

import joblib
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import BrokenProcessPool

from avprep.errors import UserError, WorkFailed
from avprep.isolation import exit_with_parent
from avprep.options import PoolOptions

Job = TypeVar("Job")
Result = TypeVar("Result")

_RESTARTS_WITHOUT_PROGRESS = 3
_CONNECT_SECONDS = 10.0


def run_jobs(
    work: Callable[[Job], Result], jobs: Sequence[Job], pool: PoolOptions
) -> Iterator[Result]:
    """Yield `work(job)` for every job, in the order they finish.

    Raises:
        WorkFailed: workers died again and again without finishing a single job.
        Exception: whatever `work` raised; jobs that have not begun are not started.
    """
    if not jobs:
        return
    if pool.backend == "loky" and (pool.count() == 1 or len(jobs) == 1):
        yield from map(work, jobs)
        return
    remaining = dict(enumerate(jobs))
    failures = 0
    while remaining:
        before = len(remaining)
        try:
            for number, result in _run_once(work, remaining, pool):
                del remaining[number]
                yield result
        except BrokenProcessPool as error:
            failures = failures + 1 if len(remaining) == before else 0
            if failures >= _RESTARTS_WITHOUT_PROGRESS:
                raise WorkFailed(
                    f"workers died {failures} times in a row without finishing a job ({error}). "
                    "Is there enough memory? Try fewer --workers."
                ) from error


def _run_once(
    work: Callable[[Job], Result], jobs: dict[int, Job], pool: PoolOptions
) -> Iterator[tuple[int, Result]]:
    task = joblib.delayed(functools.partial(_work_numbered, work))
    with _BACKENDS[pool.backend](pool):
        parallel = joblib.Parallel(
            n_jobs=min(pool.count(), len(jobs)) if pool.backend == "loky" else pool.workers or -1,
            # ray's back end cannot hand out results one by one.
            return_as="list" if pool.backend == "ray" else "generator_unordered",
            batch_size=1,
            pre_dispatch="2*n_jobs",
        )
        with _interrupts_held():
            results = parallel(task(number, job) for number, job in list(jobs.items()))
        yield from results


def _work_numbered(work: Callable[[Job], Result], number: int, job: Job) -> tuple[int, Result]:
    return number, work(job)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C waits for the end of the block, and processes started inside never hear of it.

    It reaches every process of the terminal. The parent ends its workers itself; left to
    themselves they would each print a traceback.
    """
    # The first shared resource starts this process, and that unblocks the signal again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _loky(pool: PoolOptions) -> Iterator[None]:
    """Processes of this machine."""
    try:
        with joblib.parallel_config("loky", initializer=exit_with_parent, initargs=(os.getpid(),)):
            yield
    except BaseException:
        # reuse=True: whatever pool there is; any other value may wait for its jobs.
        get_reusable_executor(reuse=True).shutdown(wait=False, kill_workers=True)
        raise


@contextmanager
def _dask(pool: PoolOptions) -> Iterator[None]:
    """A running dask cluster, or a local one for as long as the block lasts."""
    try:
        from distributed import Client, LocalCluster
        from distributed.scheduler import KilledWorker
        from joblib._dask import DaskDistributedBackend
    except ImportError as error:
        raise UserError("--backend dask needs dask: pip install 'avprep-cavmae[dask]'") from error

    class Backend(DaskDistributedBackend):
        """joblib's own waits for ever when dask gives up a job: it forgets to tell of that."""

        def submit(self, func: Any, callback: Any = None) -> Future:
            future = super().submit(func, callback)
            future.add_done_callback(
                lambda done: callback(done.exception()) if done.exception() else None
            )
            return future

    with ExitStack() as stack:
        if pool.address:
            _check_answers(pool.address, "dask scheduler")
            client = stack.enter_context(Client(pool.address))
        else:
            with _interrupts_held():
                cluster = LocalCluster(
                    n_workers=pool.count(),
                    threads_per_worker=1,
                    dashboard_address=None,
                    silence_logs=logging.CRITICAL,
                )
            client = stack.enter_context(Client(stack.enter_context(cluster)))
        try:
            with joblib.parallel_config(Backend(client=client)):
                yield
        except KilledWorker as error:
            raise WorkFailed(
                "workers of the dask cluster died again and again at the same job. Is there enough "
                "memory? Run the same command again; what is finished stays."
            ) from error


@contextmanager
def _ray(pool: PoolOptions) -> Iterator[None]:
    """A running ray cluster, or a local one for as long as the block lasts."""
    try:
        import ray
        from ray.exceptions import RayError, RayTaskError
        from ray.util.joblib import register_ray
    except ImportError as error:
        raise UserError("--backend ray needs ray: pip install 'avprep-cavmae[ray]'") from error
    is_ours = not ray.is_initialized()
    if is_ours:
        _check_answers(pool.address, "ray cluster")
        ray.init(
            address=pool.address or "local",
            num_cpus=None if pool.address else pool.count(),
            include_dashboard=None if pool.address else False,
            log_to_driver=False,
            configure_logging=False,
        )
    register_ray()
    try:
        with joblib.parallel_config("ray"):
            yield
    except RayTaskError as error:
        raise error.cause from error  # what our own code raised, without ray's traceback in it
    except RayError as error:
        raise WorkFailed(
            f"workers of the ray cluster died ({type(error).__name__}). Is there enough memory? "
            "Run the same command again; what is finished stays."
        ) from error
    finally:
        if is_ours:
            ray.shutdown()


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


_BACKENDS = {"loky": _loky, "dask": _dask, "ray": _ray}
