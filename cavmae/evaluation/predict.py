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
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from avprep.audio import decode_audio
from avprep.clips import Clip, discover_clips
from avprep.encode.process import ClipDecoder
from avprep.encode.wire import EncodedSample
from avprep.errors import DecodeError, Unreadable, UserError
from avprep.labels import LabelSet
from avprep.options import SampleOptions
from avprep.processes import stopped_by
from cavmae.data import Batch
from cavmae.data.sample import decode_frame
from cavmae.distributed import choose_device
from cavmae.evaluation.classify import frame_logits, probabilities_of
from cavmae.evaluation.clips import chosen_frames
from cavmae.evaluation.options import PredictOptions
from cavmae.evaluation.trained import (
    Classifier,
    OnNote,
    Trained,
    as_classifier,
    check_contrasts,
    load_trained,
)
from cavmae.frontend import Inputs
from cavmae.model import CAVMAEClassifier
from cavmae.options import AUDIO_MODES, IMAGE_MODES, MODE_WORDS, Mode

UNMATCHED = (
    "{file}: is a classifier, and finetuning does not train sounds to match pictures; similarities "
    "mean more from a pretrained model."
)


@dataclass(frozen=True)
class Label:
    """One class and its probability."""

    index: int
    mid: str
    name: str
    score: float


@dataclass(frozen=True)
class Similarity:
    """How well a file's sound fits one of its frames.

    Attributes:
        frame: number of the frame.
        seconds: its time, from the start of what is looked at.
        cosine: from -1 to 1, of the features of the sound and of the frame.
    """

    frame: int
    seconds: float
    cosine: float


@dataclass(frozen=True)
class Prediction:
    """What a model says about a file.

    Attributes:
        path: the file.
        mode: the modalities used, see `CAVMAEClassifier.forward`.
        labels: every class, the most probable first; empty for a pretrained model.
        similarity: of the sound to each frame, if asked for and the file has both.
    """

    path: str
    mode: Mode
    labels: tuple[Label, ...]
    similarity: tuple[Similarity, ...] = ()

    def top(self, count: int) -> tuple[Label, ...]:
        """The most probable classes."""
        return self.labels[:count]


def predict(
    path: str | Path, options: PredictOptions, on_note: OnNote = warnings.warn
) -> Prediction:
    """Classify one media file. For many, open a `Predictor` once.

    Args:
        path: a video, an audio file or a picture.
        options: which classifier, and how the file is decoded.
        on_note: called with each assumption about the classifier.

    Raises:
        DecodeError: the file cannot be decoded, or lacks what the mode needs.
        UserError: the checkpoint is not a classifier.
    """
    with Predictor(options) as predictor:
        for note in predictor.notes:
            on_note(note)
        return predictor.predict(path)


class Predictor(ExitStack):
    """A classifier for media files. Use as a context manager.

    Attributes:
        notes: what had to be assumed about the classifier, in words.
    """

    def __init__(self, options: PredictOptions) -> None:
        """Args:
        options: which classifier, and how files are decoded.

        Raises:
            UserError: not a classifier, or the options do not fit it.
        """
        super().__init__()
        self._device = choose_device(options.device)
        trained = load_trained(options.checkpoint)
        self._labels = LabelSet((), ())
        self._mode: Mode = options.mode or "multimodal"
        self.notes: tuple[str, ...] = ()
        self._classifier: Classifier | None = None
        if not options.similarity or isinstance(trained.model, CAVMAEClassifier):
            self._classifier = as_classifier(trained, options).to(self._device)
            count = self._classifier.model.num_classes
            self._mode = self._classifier.usage.mode
            self.notes = self._classifier.notes(f"; its {count} classes are numbered")
            numbers = tuple(f"class {index}" for index in range(count))
            self._labels = self._classifier.labels or LabelSet(numbers, numbers)
        if options.similarity:
            check_comparing(trained, self._mode)
            if self._classifier is not None:
                self.notes += (UNMATCHED.format(file=trained.file),)
        self._trained: Trained = self._classifier or trained.to(self._device)
        size = self._trained.model.config.image_size
        self._options = replace(options, decode=replace(options.decode, frame_size=size))
        self._frames = chosen_frames(options.use_frames, options.decode.frames)
        self._reader: ClipReader | None = None

    def predict(self, path: str | Path) -> Prediction:
        """Classify one file.

        Raises:
            DecodeError: see `predict`.
        """
        if self._reader is None:
            self._reader = ClipReader(self._options, self._mode)
            self.callback(self._reader.close)
        return self.classify(path, self._reader.read(path))

    def predict_many(
        self, paths: Sequence[str | Path]
    ) -> Iterator[tuple[str, Prediction | Unreadable]]:
        """Classify files in order; while one is classified the next ones are decoded.

        Args:
            paths: the files.

        Yields:
            A file and its prediction, or why it has none.
        """
        with ReaderPool(self._options, self._mode) as pool:
            for path, outcome in pool.read_all(paths):
                if isinstance(outcome, Unreadable):
                    yield str(path), outcome
                else:
                    yield str(path), self.classify(path, outcome)

    def classify(self, path: str | Path, sample: EncodedSample) -> Prediction:
        """Classify a decoded clip."""
        mode = self._options.mode or given_mode(self._mode, sample)
        with torch.inference_mode():
            inputs = self._trained.frontend(self._batch(path, sample).to(self._device))
            labels = self._ranked(inputs, mode) if self._classifier else ()
            similarity = self._compared(inputs, sample) if self._options.similarity else ()
        return Prediction(str(path), mode, labels, similarity)

    def _batch(self, path: str | Path, sample: EncodedSample) -> Batch:
        """A batch of one clip; without audio it has no sample, without video no frame."""
        pcm = decode_audio(sample.audio) if sample.audio else np.empty(0, np.int16)
        pcm = pcm[: self._trained.longest]
        size = self._options.decode.frame_size
        pictures = [
            decode_frame({f"{number}.jpg": memoryview(sample.frames[number])}, number, size, "")
            for number in self._numbers(sample)
        ]
        image = np.stack(pictures) if pictures else np.empty((0, size, size, 3), np.uint8)
        return Batch(
            waveform=torch.from_numpy(pcm.copy())[None],
            lengths=torch.tensor([len(pcm)]),
            image=torch.from_numpy(np.ascontiguousarray(np.moveaxis(image, -1, 1)))[None],
            labels=torch.zeros(1, len(self._labels)),
            index=torch.zeros(1, dtype=torch.int64),
            video_ids=[str(path)],
            partners=None,
            unreadable=[],
            planned=1,
        )

    def _numbers(self, sample: EncodedSample) -> list[int]:
        """The frames that are looked at, of those that the file has."""
        asked_for, there = self._options.decode.frames, len(sample.frames)
        return sorted({frame * there // asked_for for frame in self._frames}) if there else []

    def _ranked(self, inputs: Inputs, mode: Mode) -> tuple[Label, ...]:
        """Every class, the most probable first."""
        assert self._classifier is not None
        logits = frame_logits(self._classifier.model, inputs.audio, inputs.image, mode)
        (found,) = probabilities_of(logits, self._classifier.usage.criterion).mean(dim=1)
        scores = found.double().cpu().numpy()
        order = np.argsort(-scores, kind="stable").tolist()
        mids, names = self._labels.mids, self._labels.names
        return tuple(Label(k, mids[k], names[k], float(scores[k])) for k in order)

    def _compared(self, inputs: Inputs, sample: EncodedSample) -> tuple[Similarity, ...]:
        """The sound with each frame, as `cavmae retrieve` compares them."""
        numbers = self._numbers(sample)
        if not numbers or not sample.num_samples:
            return ()
        model = self._trained.model
        features = [model.audio_features(inputs.audio)]
        features += [model.image_features(frame) for frame in inputs.image.unbind(dim=1)]
        audio, *images = (F.normalize(one.float().mean(dim=1), dim=-1)[0] for one in features)
        return tuple(
            Similarity(number, sample.frame_times[number], float(audio @ image))
            for number, image in zip(numbers, images, strict=True)
        )


def check_comparing(trained: Trained, mode: Mode) -> None:
    """Raises UserError where a model cannot compare sounds with pictures."""
    if mode != "multimodal":
        raise UserError(
            f"{trained.file}: mode {mode} takes {MODE_WORDS[mode]}, but --similarity compares "
            "sound and picture. Leave --similarity out, or give a model of both."
        )
    check_contrasts(trained)


def given_mode(trained_mode: Mode, sample: EncodedSample) -> Mode:
    """The mode for what a clip has: a model of both modalities gets along with one."""
    if trained_mode != "multimodal" or (sample.frames and sample.num_samples):
        return trained_mode
    return "missingvideoonly" if sample.frames else "missingaudioonly"


class ClipReader:
    """Decodes one file at a time, in a child process."""

    def __init__(self, options: PredictOptions, trained_mode: Mode) -> None:
        self._options = options
        mode = options.mode or trained_mode
        decode = options.decode
        if mode in AUDIO_MODES:
            decode = replace(decode, frames=0)
        elif mode in IMAGE_MODES:
            decode = replace(decode, missing_audio="omit")
        elif options.mode is None:
            decode = replace(decode, missing_audio="omit", missing_video="omit")
        self._decoder = ClipDecoder(SampleOptions(decode, audio="wav"), options.limits)

    def read(self, path: str | Path) -> EncodedSample:
        """Decode a file: both streams, or the one it has where that is enough.

        Raises:
            DecodeError: see `avprep.decode.decode_clip`.
        """
        clip = Clip("", video=str(path), start=self._options.start, end=self._options.end)
        return self._decoder.decode(clip)

    def close(self) -> None:
        """End the child process."""
        self._decoder.close()


class ReaderPool(ExitStack):
    """Several `ClipReader`s at work. Use as a context manager."""

    def __init__(self, options: PredictOptions, trained_mode: Mode) -> None:
        super().__init__()
        self._options = options
        self._trained_mode = trained_mode
        self._own = threading.local()
        self._threads = ThreadPoolExecutor(options.workers, "decode")
        self._readers = self.enter_context(ExitStack())
        self.callback(self._threads.shutdown, cancel_futures=True)
        self._stop = threading.Event()
        self.callback(self._stop.set)  # first of the three

    def read_all(
        self, paths: Sequence[str | Path]
    ) -> Iterator[tuple[str | Path, EncodedSample | Unreadable]]:
        """Decode files in order; no more than twice the workers wait to be taken."""
        waiting: deque[tuple[str | Path, Future[EncodedSample | Unreadable]]] = deque()
        for path in paths:
            waiting.append((path, self._threads.submit(self._read, path)))
            if len(waiting) > 2 * self._options.workers:
                done, future = waiting.popleft()
                yield done, future.result()
        for done, future in waiting:
            yield done, future.result()

    def _read(self, path: str | Path) -> EncodedSample | Unreadable:
        if not hasattr(self._own, "reader"):
            self._own.reader = ClipReader(self._options, self._trained_mode)
            self._readers.callback(self._own.reader.close)
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
