"""Experiment trackers: where the figures of long work go beside its own files.

One small interface with an implementation for each tracker, which runs on a thread of its own: one
that fails or hangs costs the work nothing.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from avprep.errors import UserError
from avprep.options import TrackerName

_WAITING_ROWS = 10_000  # for a tracker that is slow; further ones are lost to it
_CLOSING_SECONDS = 60.0


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker knows about the work.

    Attributes:
        id: the same when the work is resumed, so that its figures continue one run.
        name: for people.
        program: names the project (of wandb and trackio) or the experiment (of mlflow) where none
            of their own environment variables does.
        config: options, as JSON would hold them.
        folder: for files of trackers that write any; of the run alone.
        first_step: figures of this step and later ones replace those of an earlier attempt.
    """

    id: str
    name: str
    program: str
    config: Mapping[str, Any]
    folder: Path
    first_step: int = 0


class Tracker(Protocol):
    """Takes figures. May raise anything."""

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Take the figures of a step, by name."""
        ...

    def close(self) -> None:
        """Finish; nothing is logged afterwards."""
        ...


class TensorBoard:
    """Event files in the folder `tensorboard`."""

    def __init__(self, run: TrackedRun) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._writer = EventFileWriter(str(run.folder / "tensorboard"))
        if run.first_step:  # hides what a run that was killed had written beyond its checkpoint
            start = SessionLog(status=SessionLog.START)
            self._writer.add_event(
                Event(wall_time=time.time(), step=run.first_step, session_log=start)
            )

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """See `Tracker`."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in figures.items()]
        self._writer.add_event(
            Event(wall_time=time.time(), step=step, summary=Summary(value=values))
        )

    def close(self) -> None:
        """See `Tracker`."""
        self._writer.close()


class Wandb:
    """Weights & Biases; online or offline as its own variables say (`WANDB_MODE`)."""

    def __init__(self, run: TrackedRun) -> None:
        import wandb

        self._run = wandb.init(
            id=run.id,
            resume="allow",
            project=os.environ.get("WANDB_PROJECT", run.program),
            name=run.name,
            dir=str(run.folder),
            config=dict(run.config),
        )
        # wandb's own count never goes back, as the steps of a run resumed after a kill do.
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """See `Tracker`."""
        self._run.log({**figures, "step": step})

    def close(self) -> None:
        """See `Tracker`."""
        self._run.finish()


class Mlflow:
    """MLflow; where to is said by its own variables (`MLFLOW_TRACKING_URI`)."""

    def __init__(self, run: TrackedRun) -> None:
        from mlflow import MlflowClient

        self._client = MlflowClient()
        title = os.environ.get("MLFLOW_EXPERIMENT_NAME", run.program)
        found = self._client.get_experiment_by_name(title)
        experiment = found.experiment_id if found else self._client.create_experiment(title)
        tag = f"{run.program}.run_id"
        earlier = self._client.search_runs([experiment], f"tags.`{tag}` = '{run.id}'")
        if earlier:
            self._id = earlier[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            return
        made = self._client.create_run(experiment, run_name=run.name, tags={tag: run.id})
        self._id = made.info.run_id
        for name, value in run.config.items():
            self._client.log_param(self._id, name, value)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """See `Tracker`."""
        from mlflow.entities import Metric

        now = round(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, value in figures.items()]
        self._client.log_batch(self._id, metrics)

    def close(self) -> None:
        """See `Tracker`."""
        self._client.set_terminated(self._id)


class Trackio:
    """trackio; its files are where its own variables say (`TRACKIO_DIR`)."""

    def __init__(self, run: TrackedRun) -> None:
        import trackio

        self._run = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", run.program),
            name=f"{run.name}-{run.id[:8]}",  # trackio knows runs by their names
            config=dict(run.config),
            resume="allow",
            embed=False,
        )

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """See `Tracker`."""
        self._run.log(dict(figures), step=step)

    def close(self) -> None:
        """See `Tracker`."""
        self._run.finish()


_TRACKERS: Mapping[TrackerName, Callable[[TrackedRun], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": Wandb,
    "mlflow": Mlflow,
    "trackio": Trackio,
}


class BackgroundTracker:
    """A tracker on a thread of its own.

    Rows wait for it; if too many do, or it raises, the rest is lost to it and `failure` says so.
    """

    def __init__(self, name: str, begin: Callable[[], Tracker]) -> None:
        """Args:
        name: of the tracker, for messages.
        begin: begins it, on the thread.
        """
        self._name = name
        self._rows: queue.Queue[tuple[int, Mapping[str, float]] | None] = queue.Queue(_WAITING_ROWS)
        self._problem = ""
        # A daemon, so that one that hangs does not keep the program alive.
        self._thread = threading.Thread(target=self._work, args=(begin,), daemon=True)
        self._thread.start()

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Hand over the figures of a step; returns at once."""
        if self._problem:
            return
        try:
            self._rows.put_nowait((step, figures))
        except queue.Full:
            self._problem = f"has not answered for {_WAITING_ROWS} rows"

    def close(self, seconds: float) -> None:
        """Let it finish, for so long at most."""
        deadline = time.monotonic() + seconds
        try:
            self._rows.put(None, timeout=seconds)
        except queue.Full:
            pass
        else:
            self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            self._problem = self._problem or f"did not finish within {seconds:g} s"

    @property
    def failure(self) -> str:
        """What went wrong, in words; empty while nothing has."""
        if not self._problem:
            return ""
        return f"{self._name}: {self._problem}. It gets no more rows; the command continues."

    def _work(self, begin: Callable[[], Tracker]) -> None:
        # Whatever a tracker raises is not to end the work, and trackers raise all sorts of things.
        try:
            tracker = begin()
            while (row := self._rows.get()) is not None:
                tracker.log(*row)
            tracker.close()
        except BaseException as error:  # SystemExit, too: a thread ends of it without a word
            self._problem = f"{type(error).__name__}: {error}".splitlines()[0]


class Trackers:
    """The trackers of one run."""

    def __init__(self, names: Sequence[TrackerName], run: TrackedRun) -> None:
        """Args:
        names: of the trackers; their libraries are installed, see `check_trackers`.
        run: what they know about it.
        """
        self._trackers = {
            name: BackgroundTracker(name, functools.partial(_TRACKERS[name], run)) for name in names
        }
        self._told: set[str] = set()

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Hand the figures of a step to each; returns at once."""
        for tracker in self._trackers.values():
            tracker.log(step, figures)

    def close(self) -> None:
        """Let all finish, at the same time, so that several that hang cost no more than one."""
        with ThreadPoolExecutor(len(_TRACKERS)) as pool:
            for tracker in self._trackers.values():
                pool.submit(tracker.close, _CLOSING_SECONDS)

    def failures(self) -> list[str]:
        """What went wrong since this was last asked, in words."""
        failed = {
            name: tracker.failure for name, tracker in self._trackers.items() if tracker.failure
        }
        new = [words for name, words in failed.items() if name not in self._told]
        self._told |= failed.keys()
        return new


def check_trackers(names: Sequence[TrackerName]) -> None:
    """Check that the trackers' libraries are installed.

    Raises:
        UserError: one is not.
    """
    for name in names:
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:  # a folder, such as wandb makes for its runs
            raise UserError(
                f"--track {name}: {name} is not installed. "
                f"Run `pip install 'avprep-cavmae[{name}]'`."
            )
