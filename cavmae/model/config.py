"""The size of a model and what it was made to learn, and the sizes that have a name."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass

from avprep.errors import UserError
from cavmae.options import (
    AUDIO_FRAMES,
    BOTH,
    MODES,
    OBJECTIVES,
    Modality,
    Mode,
    Objective,
    modalities_of,
)

# A file may name sizes that would keep the computer busy without end, or overflow its numbers.
_LARGEST, _DEEPEST = 1 << 24, 1000


@dataclass(frozen=True)
class ModelConfig:
    """Everything that decides a model's parameters and their shapes. Defaults: the published base.

    Raises:
        UserError: an impossible size, with the field's name.
    """

    embed_dim: int = 768
    depth: int = 12  # of each modality's stream, the shared blocks included
    modality_depth: int = 11  # blocks of its own that each modality has
    num_heads: int = 12
    mlp_ratio: float = 4.0
    decoder_dim: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16
    patch_size: int = 16
    image_size: int = 224  # pixels
    audio_frames: int = AUDIO_FRAMES  # rows of the fbank, 10 ms each
    mel_bins: int = 128
    trainable_positions: bool = False
    objective: Objective = "cav-mae"  # of pretraining; files without it are CAV-MAE's

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise UserError(
                f"unknown objective {self.objective!r}; choose from {', '.join(OBJECTIVES)}."
            )
        if self.objective == "av-mae" and self.modality_depth:
            raise UserError(
                f"modality_depth is {self.modality_depth}; av-mae has one encoder for both "
                "modalities: give 0."
            )
        for field in dataclasses.fields(self):
            lowest = 0 if field.name in ("modality_depth", "decoder_depth") else 1
            if field.name not in ("mlp_ratio", "trainable_positions", "objective"):
                value = getattr(self, field.name)
                if not isinstance(value, int) or value < lowest:
                    raise UserError(f"{field.name} is {value!r}, it must be a number ≥ {lowest}.")
                highest = _DEEPEST if field.name.endswith("depth") else _LARGEST
                if value > highest:
                    raise UserError(f"{field.name} is {value}, it must be at most {highest}.")
        ratio = self.mlp_ratio
        if not isinstance(ratio, (int, float)) or not 0 < ratio * self.embed_dim <= _LARGEST:
            raise UserError(
                f"mlp_ratio is {ratio!r}, it must be positive, and at most "
                f"{_LARGEST / self.embed_dim:g}."
            )
        for name in ("image_size", "audio_frames", "mel_bins"):
            value = getattr(self, name)
            if value % self.patch_size:
                below = value // self.patch_size * self.patch_size
                near = f"{below} or " if below else ""
                raise UserError(
                    f"{name} is {value}, it must be a multiple of the patch size "
                    f"{self.patch_size}: take {near}{below + self.patch_size}."
                )
        for width, heads in (("embed_dim", "num_heads"), ("decoder_dim", "decoder_heads")):
            if getattr(self, width) % getattr(self, heads):
                raise UserError(
                    f"{width} {getattr(self, width)} is not a multiple of "
                    f"{heads} {getattr(self, heads)}."
                )
            if getattr(self, width) % 4:
                raise UserError(f"{width} {getattr(self, width)} is not a multiple of 4.")
        if not 0 <= self.modality_depth < self.depth:
            raise UserError(
                f"modality_depth {self.modality_depth} must be at least 0 and below depth "
                f"{self.depth}: one block at least is shared."
            )

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """That the model is given."""
        one: dict[Objective, tuple[Modality, ...]] = {
            "audio-mae": ("audio",),
            "image-mae": ("image",),
        }
        return one.get(self.objective, BOTH)

    @property
    def reconstructs(self) -> bool:
        """Whether hidden patches are predicted; else there are none, and no decoder."""
        return self.objective != "cav"

    @property
    def contrasts(self) -> bool:
        """Whether sounds are matched with images: each modality has norms of its own for that."""
        return self.objective in ("cav-mae", "cav")

    @property
    def modes(self) -> tuple[Mode, ...]:
        """Of a classifier with this encoder."""
        if self.modalities == BOTH:
            return MODES
        return tuple(
            mode
            for mode in MODES
            if modalities_of(mode) == self.modalities and not mode.startswith("missing")
        )

    def with_objective(self, objective: Objective) -> ModelConfig:
        """The model of the same size for another objective."""
        own = 0 if objective == "av-mae" else self.modality_depth
        return dataclasses.replace(self, objective=objective, modality_depth=own)

    def grid(self, modality: Modality) -> tuple[int, int]:
        """Rows and columns of patches; of a spectrogram, along frequency and along time."""
        height, width = self.image_size, self.image_size
        if modality == "audio":
            height, width = self.mel_bins, self.audio_frames
        return height // self.patch_size, width // self.patch_size

    def patches(self, modality: Modality) -> int:
        """How many there are."""
        rows, columns = self.grid(modality)
        return rows * columns

    @classmethod
    def preset(cls, name: str, **changes: object) -> ModelConfig:
        """A named size, with some fields changed.

        Raises:
            UserError: no such name, no such field, or a combination that cannot be.
        """
        if name not in PRESETS:
            raise UserError(f"unknown model size {name!r}; choose from {', '.join(PRESETS)}.")
        _check_fields(changes)
        return dataclasses.replace(PRESETS[name], **changes)  # type: ignore[arg-type]

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ModelConfig:
        """The config that `to_json` wrote.

        Raises:
            UserError: not one of those.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"the model's config is not JSON ({error}).") from error
        if not isinstance(values, dict):
            raise UserError("the model's config is not a JSON object.")
        _check_fields(values)
        return cls(**values)


def _check_fields(values: Mapping[str, object]) -> None:
    known = [field.name for field in dataclasses.fields(ModelConfig)]
    if strangers := sorted(set(values) - set(known)):
        raise UserError(
            f"unknown field {strangers[0]!r} of a model's config; known are {', '.join(known)}."
        )


PRESETS = {
    "tiny": ModelConfig(  # learns the demo on two cores in minutes
        embed_dim=128,
        depth=4,
        modality_depth=3,
        num_heads=4,
        decoder_dim=64,
        decoder_depth=1,
        decoder_heads=2,
        patch_size=32,
    ),
    "small": ModelConfig(
        embed_dim=384, num_heads=6, decoder_dim=256, decoder_depth=4, decoder_heads=8
    ),
    "base": ModelConfig(),
    "large": ModelConfig(embed_dim=1024, depth=24, modality_depth=22, num_heads=16),
}
