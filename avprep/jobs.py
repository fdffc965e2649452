"""Run independent jobs on the cores of this machine or of a cluster; results come as they finish.

A job here spends its time in a child of its own (a clip's decoder, an ffmpeg) or in code that
releases Python's lock (hashing, images), so the workers of this machine are threads.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import joblib

from avprep import clusters
from avprep.options import PoolOptions
from avprep.processes import stopped_by

Job = TypeVar("Job")
Result = TypeVar("Result")


def run_jobs(
    work: Callable[[Job], Result], jobs: Sequence[Job], pool: PoolOptions
) -> Iterator[Result]:
    """Yield `work(job)` for every job, in the order they finish.

    Raises:
        UserError: there is no such cluster.
        WorkFailed: workers of a cluster died repeatedly.
        Exception: whatever `work` raised first; the other jobs are stopped.
    """
    if not jobs:
        return
    workers = min(pool.count(), len(jobs))
    if pool.backend == "dask":
        yield from clusters.run_on_dask(work, jobs, pool.workers, pool.address)
    elif pool.backend == "ray":
        yield from clusters.run_on_ray(work, jobs, pool.workers, pool.address)
    elif workers == 1:
        yield from map(work, jobs)
    else:
        yield from _run_in_threads(work, jobs, workers)


def _run_in_threads(
    work: Callable[[Job], Result], jobs: Sequence[Job], workers: int
) -> Iterator[Result]:
    stop, at_work = threading.Event(), threading.Semaphore(workers)

    def run(job: Job) -> Result:
        with at_work, stopped_by(stop):
            return work(job)

    parallel = joblib.Parallel(workers, backend="threading", return_as="generator_unordered")
    results = parallel(joblib.delayed(run)(job) for job in jobs)
    try:
        for result in results:  # noqa: UP028 - `yield from` would close them first
            yield result
    finally:
        stop.set()
        for _ in range(workers):  # until none is at work, and what they had begun is cleaned up
            at_work.acquire()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # joblib complains of results that nobody takes
            results.close()
