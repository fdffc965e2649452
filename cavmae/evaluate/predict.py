"""What a video file shows and sounds like: decoded here and now, classified as `cavmae eval` does.

A file goes the way of a clip in a shard set: avprep decodes it in a process of its own, its frames
become JPEGs and its audio 16-bit samples. So a prediction is the one that `cavmae eval` makes of
the same clip.
"""

from __future__ import annotations

import threading
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from numpy.typing import NDArray

from avprep.audio import decode_audio
from avprep.clips import Clip, discover_clips
from avprep.encode.process import ClipDecoder
from avprep.encode.wire import EncodedSample
from avprep.errors import DecodeError, Unreadable
from avprep.labels import LabelSet
from avprep.options import DecodeOptions, IsolationOptions, SampleOptions
from avprep.processes import stopped_by
from cavmae.checkpoints.usage import Stated, label_notes, labels_of, usage_of
from cavmae.data import Batch
from cavmae.data.sample import decode_frame
from cavmae.distributed import choose_device
from cavmae.evaluate.classify import ClassifyOptions, OneResult, chosen_frames, mean_probabilities
from cavmae.evaluate.trained import Trained, load_trained, require_classifier
from cavmae.options import AUDIO_MODES, IMAGE_MODES, Criterion, Mode


@dataclass(frozen=True)
class PredictOptions:
    """How files are decoded and classified."""

    mode: Mode | None = None  # None: as trained, with one modality where a file has but one
    criterion: Criterion | None = None  # None: as trained
    frames: OneResult = "all"  # "all" averages the probabilities of all frames
    start: float | None = None  # first second of the segment to look at
    end: float | None = None  # its end, exclusive
    decode: DecodeOptions = field(default_factory=DecodeOptions)  # frame_size: the model's
    limits: IsolationOptions = field(default_factory=IsolationOptions)


@dataclass(frozen=True)
class Label:
    """One class and its probability."""

    index: int
    mid: str
    name: str
    score: float


@dataclass(frozen=True)
class Prediction:
    """What a classifier makes of a file.

    Attributes:
        path: the file.
        mode: which modalities it has, see `CAVMAEClassifier.forward`.
        labels: every class, the most probable first.
    """

    path: str
    mode: Mode
    labels: tuple[Label, ...]

    def top(self, count: int) -> tuple[Label, ...]:
        """The most probable classes."""
        return self.labels[:count]


def predict(
    path: str | Path,
    checkpoint: str | Path,
    options: PredictOptions | None = None,
    device: str = "auto",
) -> Prediction:
    """Classify one media file. For many, open a `Predictor` once.

    Warns about what the checkpoint does not store and is assumed.

    Args:
        path: a video file; also one without a video or without an audio stream.
        checkpoint: a finetuning run, or a classifier's file.
        options: see `PredictOptions`.
        device: auto, cpu, cuda or cuda:N.

    Raises:
        DecodeError: the file cannot be decoded, or lacks what the mode needs.
        UserError: the checkpoint is no classifier.
    """
    with Predictor.open(checkpoint, options, device) as predictor:
        for note in predictor.notes:
            warnings.warn(note, stacklevel=2)
        return predictor.predict(path)


class Predictor:
    """A classifier for media files. Use as a context manager."""

    def __init__(
        self,
        trained: Trained,
        options: PredictOptions,
        device: torch.device,
        labels: LabelSet | None = None,
    ) -> None:
        """Args:
        trained: a classifier.
        options: see `PredictOptions`.
        device: that it runs on.
        labels: its classes; None for those that its file names.

        Raises:
            UserError: no classifier, or the options do not fit it.
        """
        self.model = require_classifier(trained)
        self.trained = trained.to(device)
        size = self.model.config.image_size
        self.options = replace(options, decode=replace(options.decode, frame_size=size))
        self.device = device
        usage = usage_of(
            trained.file,
            trained.metadata,
            self.model.num_classes,
            Stated(options.mode, options.criterion),
        )
        self.trained_mode, self.criterion = usage.mode, usage.criterion
        self.labels, of_labels = self._named_classes(labels)
        self.notes = (*usage.notes, *of_labels)  # what had to be assumed, in words
        self._frames = chosen_frames(options.frames, options.decode.frames)
        self._reader = ClipReader(self.options, self.trained_mode)

    @classmethod
    def open(
        cls,
        checkpoint: str | Path,
        options: PredictOptions | None = None,
        device: str = "auto",
        labels: LabelSet | None = None,
    ) -> Predictor:
        """Load a run or a checkpoint file; see `predict`."""
        return cls(
            load_trained(checkpoint), options or PredictOptions(), choose_device(device), labels
        )

    def __enter__(self) -> Predictor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._reader.close()

    def predict(self, path: str | Path) -> Prediction:
        """Classify one file.

        Raises:
            DecodeError: see `predict`.
        """
        return self.classify(path, self._reader.read(path))

    def predict_many(
        self, paths: Sequence[str | Path], workers: int
    ) -> Iterator[tuple[str, Prediction | Unreadable]]:
        """Classify files in order; while one is classified the next ones are decoded.

        Args:
            paths: the files.
            workers: how many are decoded at a time, each in a process of its own.

        Yields:
            A file and its prediction, or why there is none.
        """
        with ReaderPool(self.options, self.trained_mode, workers) as pool:
            for path, outcome in pool.read_all(paths):
                if isinstance(outcome, Unreadable):
                    yield str(path), outcome
                else:
                    yield str(path), self.classify(path, outcome)

    def classify(self, path: str | Path, sample: EncodedSample) -> Prediction:
        """Classify a decoded clip."""
        mode = self.options.mode or given_mode(self.trained_mode, sample)
        batch = self._batch(path, sample)
        options = ClassifyOptions(mode, self.options.frames, self.criterion)
        with torch.inference_mode():
            inputs = self.trained.frontend(batch.to(self.device))
            (scores,) = mean_probabilities(self.model, inputs.audio, inputs.image, options)
        return Prediction(str(path), mode, self._ranked(scores.double().cpu().numpy()))

    def _batch(self, path: str | Path, sample: EncodedSample) -> Batch:
        """A batch of one clip; without audio it has no sample, without video no frame."""
        pcm = decode_audio(sample.audio)[: self.trained.longest]
        size = self.options.decode.frame_size
        pictures = [
            decode_frame({f"{number}.jpg": memoryview(sample.frames[number])}, number, size, "")
            for number in (self._frames if sample.frames else ())
        ]
        image = np.stack(pictures) if pictures else np.empty((0, size, size, 3), np.uint8)
        return Batch(
            waveform=torch.from_numpy(pcm.copy())[None],
            lengths=torch.tensor([len(pcm)]),
            image=torch.from_numpy(np.ascontiguousarray(np.moveaxis(image, -1, 1)))[None],
            labels=torch.zeros(1, self.model.num_classes),
            index=torch.zeros(1, dtype=torch.int64),
            video_ids=[str(path)],
            partners=None,
            unreadable=[],
            planned=1,
        )

    def _ranked(self, scores: NDArray[np.float64]) -> tuple[Label, ...]:
        order = np.argsort(-scores, kind="stable").tolist()
        mids, names = self.labels.mids, self.labels.names
        return tuple(Label(k, mids[k], names[k], float(scores[k])) for k in order)

    def _named_classes(self, given: LabelSet | None) -> tuple[LabelSet, tuple[str, ...]]:
        """The classes, and what to say about them."""
        file, metadata, count = self.trained.file, self.trained.metadata, self.model.num_classes
        labels = labels_of(file, metadata, count, given)
        notes = label_notes(file, metadata, labels, f"; its {count} classes are numbered")
        numbers = tuple(f"class {index}" for index in range(count))
        return labels or LabelSet(numbers, numbers), notes


def given_mode(trained_mode: Mode, sample: EncodedSample) -> Mode:
    """The mode for what a clip has: a model of both modalities gets along with one."""
    if trained_mode != "multimodal" or (sample.frames and sample.num_samples):
        return trained_mode
    return "missingvideoonly" if sample.frames else "missingaudioonly"


class ClipReader:
    """Decodes one file at a time, in child processes."""

    def __init__(self, options: PredictOptions, trained_mode: Mode) -> None:
        self._options = options
        mode = options.mode or trained_mode
        self._is_optional = options.mode is None and mode == "multimodal"
        decode = options.decode
        audio_only = replace(decode, frames=0, missing_audio="fail")
        if mode in AUDIO_MODES:
            wanted = audio_only
        elif mode in IMAGE_MODES or self._is_optional:
            wanted = replace(decode, missing_audio="omit")
        else:
            wanted = replace(decode, missing_audio="fail")
        self._decoder = self._new_decoder(wanted)
        self._audio_decoder = self._new_decoder(audio_only)

    def _new_decoder(self, decode: DecodeOptions) -> ClipDecoder:
        return ClipDecoder(SampleOptions(decode, audio="wav"), self._options.limits)

    def read(self, path: str | Path) -> EncodedSample:
        """Decode a file: both streams, or the one it has where that is enough.

        Raises:
            DecodeError: see `avprep.decode.decode_clip`.
        """
        clip = Clip("", video=str(path), start=self._options.start, end=self._options.end)
        try:
            return self._decoder.decode(clip)
        except DecodeError as error:
            if error.cause != "no-video" or not self._is_optional:
                raise
        return self._audio_decoder.decode(clip)

    def close(self) -> None:
        """End the child processes."""
        for decoder in (self._decoder, self._audio_decoder):
            decoder.close()


class ReaderPool:
    """Several `ClipReader`s at work. Use as a context manager."""

    def __init__(self, options: PredictOptions, trained_mode: Mode, workers: int) -> None:
        self._options = options
        self._trained_mode = trained_mode
        self._workers = workers
        self._threads = ThreadPoolExecutor(workers, "decode")
        self._own = threading.local()
        self._readers: list[ClipReader] = []
        self._stop = threading.Event()

    def __enter__(self) -> ReaderPool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._threads.shutdown(cancel_futures=True)
        for reader in self._readers:
            reader.close()

    def read_all(
        self, paths: Sequence[str | Path]
    ) -> Iterator[tuple[str | Path, EncodedSample | Unreadable]]:
        """Decode files in order; no more than twice the workers wait to be taken."""
        waiting: deque[tuple[str | Path, Future[EncodedSample | Unreadable]]] = deque()
        for path in paths:
            waiting.append((path, self._threads.submit(self._read, path)))
            if len(waiting) > 2 * self._workers:
                done, future = waiting.popleft()
                yield done, future.result()
        for done, future in waiting:
            yield done, future.result()

    def _read(self, path: str | Path) -> EncodedSample | Unreadable:
        if not hasattr(self._own, "reader"):
            self._own.reader = ClipReader(self._options, self._trained_mode)
            self._readers.append(self._own.reader)
        try:
            with stopped_by(self._stop):
                return self._own.reader.read(path)
        except DecodeError as error:
            return error.outcome


def find_files(places: Sequence[Path]) -> list[str]:
    """The files given, and the videos of the folders given.

    Raises:
        UserError: a folder without a video.
    """
    files: list[str] = []
    for place in places:
        files += [clip.video for clip in discover_clips(place)] if place.is_dir() else [str(place)]
    return files
