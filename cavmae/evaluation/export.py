"""`cavmae export`: a classifier with its front end inside, as one program for PyTorch's runtime.

The program takes what a decoder gives, waveforms and RGB frames, and needs none of this project's
code. It is made by `torch.export`.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from avprep import storage
from avprep.audio import SAMPLE_RATE
from avprep.errors import UserError, WorkFailed
from cavmae.data import Batch
from cavmae.evaluation.options import ExportOptions, Waveform
from cavmae.evaluation.trained import Classifier, OnNote, load_classifier
from cavmae.frontend import FrontEnd
from cavmae.frontend.fbank import fbank_of_rows, frame_count, samples_for
from cavmae.model import CAVMAEClassifier
from cavmae.options import AUDIO_MODES, IMAGE_MODES, Mode

SUFFIX = ".pt2"
FACTS_FILE = "cavmae.json"  # inside the archive
TOLERANCE = 1e-5  # largest difference of a logit that an export may have
_MOST_CLIPS = 65536  # in a batch
_MOST_SAMPLES = 2**31 - 1


@dataclass(frozen=True)
class ExportResult:
    """An exported program.

    Attributes:
        file: its path.
        inputs: the names of its inputs, in order.
        classes: number of logits per clip.
        largest_difference: between its logits and the model's.
    """

    file: Path
    inputs: tuple[str, ...]
    classes: int
    largest_difference: float


@dataclass(frozen=True)
class Interface:
    """What a program takes."""

    mode: Mode
    waveform: Waveform

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the program's inputs, in order."""
        audio = () if self.mode in IMAGE_MODES else ("waveform", "lengths")
        return audio if self.mode in AUDIO_MODES else (*audio, "frames")


class Deployed(nn.Module):
    """Waveforms and frames → logits, as `FrontEnd` and the classifier compute them."""

    def __init__(self, model: CAVMAEClassifier, frontend: FrontEnd, takes: Interface) -> None:
        super().__init__()
        self.model = model
        self.frontend = frontend
        self.takes = takes

    def forward(
        self,
        waveform: Tensor | None = None,
        lengths: Tensor | None = None,
        frames: Tensor | None = None,
    ) -> Tensor:
        """Class logits.

        Args:
            waveform: [B, T], 16 kHz, int16, or float32 in [-1, 1]; what the model has no room for
                is left out. Only in a mode with audio.
            lengths: int64 [B], samples of each clip; what comes after them is padding.
            frames: uint8 [B, size, size, 3], RGB, one per clip. Only in a mode with images.

        Returns:
            float32 [B, classes]; their softmax or sigmoid are probabilities.
        """
        audio = image = None
        if waveform is not None and lengths is not None:
            audio = self._fbank(waveform, lengths)
        if frames is not None:
            image = self.frontend.normalise_image(frames.permute(0, 3, 1, 2))
        return self.model(audio, image, self.takes.mode)

    def _fbank(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """[B, T] → float32 [B, rows, 128], written without a branch on any input's size."""
        options = self.frontend.options
        needed = samples_for(options.target_length)
        samples = waveform.float()
        if self.takes.waveform == "int16":
            samples = samples / 32768
        room = samples.new_zeros(samples.shape[0], needed)
        samples = torch.cat([samples, room], dim=1)[:, :needed]
        lengths = lengths.clamp(0, needed)
        beyond = torch.arange(needed, device=samples.device) >= lengths[:, None]
        samples = samples.masked_fill(beyond, 0.0)
        mean = samples.sum(dim=1, keepdim=True) / lengths[:, None].clamp_min(1)
        energies = fbank_of_rows((samples - mean).masked_fill(beyond, 0.0))
        rows = torch.arange(options.target_length, device=samples.device)
        energies = energies.masked_fill((rows >= frame_count(lengths)[:, None])[:, :, None], 0.0)
        return (energies - options.mean) / options.std


def export(
    checkpoint: str | Path,
    target: str | Path,
    options: ExportOptions = ExportOptions(),
    on_note: OnNote = warnings.warn,
) -> ExportResult:
    """Write a classifier as a program, after checking that it gives the model's numbers.

    Args:
        checkpoint: a finetuning run or a checkpoint file.
        target: the .pt2 to write.
        options: what the program takes.
        on_note: called with each assumption about the classifier.

    Raises:
        UserError: not a classifier, or a name that is not .pt2.
        WorkFailed: the program gives other numbers.
    """
    target = Path(target)
    if target.suffix != SUFFIX:
        raise UserError(
            f"{target}: the name must end in {SUFFIX} (torch.export). ONNX and TorchScript are not "
            "written: neither is sure to keep the front end's numbers."
        )
    storage.make_folder(target.parent)
    classifier = load_classifier(checkpoint, options)
    for note in classifier.notes(", and neither does the program"):
        on_note(note)
    takes = Interface(classifier.usage.mode, options.waveform)
    program = export_program(classifier, takes)
    worst = largest_difference(classifier, takes, program)
    if not worst <= TOLERANCE:
        raise WorkFailed(
            f"{target}: not written, its logits differ from the model's by {worst:.2g}."
        )
    extra = {FACTS_FILE: json.dumps(described(classifier, takes))}
    with storage.replacing(target) as file:
        torch.export.save(program, file, extra_files=extra)
    return ExportResult(target, takes.inputs, classifier.model.num_classes, worst)


def described(classifier: Classifier, takes: Interface) -> dict[str, object]:
    """What whoever runs the program must know; it is stored in the archive."""
    labels = classifier.labels
    return {
        "inputs": list(takes.inputs),
        "mode": takes.mode,
        "waveform": takes.waveform,
        "sample_rate": SAMPLE_RATE,
        "longest": classifier.longest,
        "frame_size": classifier.model.config.image_size,
        "criterion": classifier.usage.criterion,
        "labels": None if labels is None else list(zip(labels.mids, labels.names, strict=True)),
    }


def export_program(classifier: Classifier, takes: Interface) -> ExportedProgram:
    """The classifier as a program for any number of clips of any length."""
    deployed = Deployed(classifier.model, classifier.frontend, takes).eval()
    clips, samples = Dim("clips", max=_MOST_CLIPS), Dim("samples", max=_MOST_SAMPLES)
    sizes = {"waveform": {0: clips, 1: samples}, "lengths": {0: clips}, "frames": {0: clips}}
    example = _example(classifier, takes, clips=2, samples=classifier.longest, seed=0)
    with torch.no_grad():
        deployed(**example)  # makes the constants of the fbank, which tracing must find as they are
        return torch.export.export(
            deployed, (), example, dynamic_shapes={name: sizes[name] for name in example}
        )


def largest_difference(classifier: Classifier, takes: Interface, program: ExportedProgram) -> float:
    """How far a program's logits are from the model's, over clips of several lengths."""
    runnable = program.module()
    longest, worst = classifier.longest, 0.0
    for seed, (clips, samples) in enumerate(((1, longest), (3, longest // 2), (2, longest + 999))):
        example = _example(classifier, takes, clips, samples, seed)
        with torch.no_grad():
            inputs = classifier.frontend(_as_read(classifier, example))
            logits = classifier.model(inputs.audio, inputs.image, takes.mode)
            difference = runnable(**example) - logits
        worst = max(worst, difference.abs().max().item())
    return worst


def _as_read(classifier: Classifier, example: dict[str, Tensor]) -> Batch:
    """A program's inputs as the front end takes them; what the program does not take is empty."""
    size = classifier.model.config.image_size
    clips = len(next(iter(example.values())))
    waveform = example.get("waveform", torch.zeros(clips, 400, dtype=torch.int16))
    if waveform.is_floating_point():
        waveform = (waveform * 32768).to(torch.int16)
    frames = example.get("frames", torch.zeros(clips, size, size, 3, dtype=torch.uint8))
    lengths = example.get("lengths", torch.zeros(clips, dtype=torch.int64))
    return Batch(
        waveform,
        lengths,
        frames.permute(0, 3, 1, 2),
        labels=torch.zeros(clips, 1),
        index=torch.arange(clips),
        video_ids=[""] * clips,
        partners=None,
        unreadable=[],
        planned=clips,
    )


def _example(
    classifier: Classifier, takes: Interface, clips: int, samples: int, seed: int
) -> dict[str, Tensor]:
    """Random inputs; the first clip fills its waveform, the others do not."""
    generator = torch.Generator().manual_seed(seed)
    size = classifier.model.config.image_size
    noise = torch.randint(-9000, 9000, (clips, samples), generator=generator, dtype=torch.int16)
    inputs = {
        "waveform": noise if takes.waveform == "int16" else noise.float() / 32768,
        "lengths": torch.tensor([samples, *[samples * 2 // 3] * (clips - 1)]),
        "frames": torch.randint(
            0, 256, (clips, size, size, 3), generator=generator, dtype=torch.uint8
        ),
    }
    return {name: inputs[name] for name in takes.inputs}
