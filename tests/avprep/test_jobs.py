"""Threads that do the jobs of this machine: results as they come, and an end in order."""

from __future__ import annotations

import threading
import time

import pytest

from avprep.errors import WorkFailed
from avprep.jobs import PoolOptions, run_jobs
from avprep.processes import check_stop


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_every_job_has_its_result(workers):
    results = run_jobs(lambda job: job * job, range(20), PoolOptions(workers))
    assert sorted(results) == [job * job for job in range(20)]


class Work:
    """Jobs of two kinds: endless until told to stop, and others once an endless one has begun."""

    def __init__(self) -> None:
        self.begun, self.stopped, self.at_work = [], [], threading.Event()

    def __call__(self, job: str) -> str:
        if job != "endless":
            self.at_work.wait()
            if job == "fail":
                raise WorkFailed("no more")
            return job
        self.begun.append(job)
        self.at_work.set()
        try:
            while True:
                check_stop()
                time.sleep(0.001)
        finally:
            time.sleep(0.05)  # cleans up
            self.stopped.append(job)


def test_a_job_that_fails_ends_the_others_before_the_error_is_seen():
    work = Work()
    with pytest.raises(WorkFailed, match="no more"):
        list(run_jobs(work, ["endless", "fail", "endless"], PoolOptions(2)))
    assert work.begun == work.stopped != []


@pytest.mark.filterwarnings("error")
def test_results_that_nobody_takes_end_the_work():
    work = Work()
    results = run_jobs(work, ["endless", "quick"], PoolOptions(2))
    assert next(results) == "quick"
    results.close()
    assert work.stopped == ["endless"]


def test_work_outside_of_run_jobs_is_never_stopped():
    check_stop()
