"""`cavmae inpaint`: PNG panels of what was hidden and what was filled in."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from avprep import storage
from avprep.errors import UserError
from avprep.progress import OnProgress, ignore
from avprep.shards.format import sample_key
from cavmae.data import ShardSet, open_shards
from cavmae.distributed import World, choose_device
from cavmae.evaluation.clips import clip_counter, clip_loader
from cavmae.evaluation.masked import Inpainting, fill_in
from cavmae.evaluation.options import HidingOptions, InpaintOptions, LoadOptions
from cavmae.evaluation.trained import Trained, load_trained, require_pretrained
from cavmae.frontend import FrontEnd
from cavmae.options import BOTH, Modality

_GREY = 0.5
_ROWS_A_SECOND = 100  # of the fbank


@dataclass(frozen=True)
class Panels:
    """What is drawn of one clip; None of a modality that the model does not have.

    Attributes:
        image: original, masked, reconstructed; float [3, H, W, 3] in [0, 1].
        audio: the same of the log-mel spectrogram; float [3, mel, frames], nan where hidden.
    """

    image: NDArray[np.float32] | None
    audio: NDArray[np.float32] | None


@dataclass(frozen=True)
class DrawnClip:
    """A clip that was drawn."""

    video_id: str
    file: str  # in the folder
    loss_audio: float | None  # as pretraining measures it, over hidden patches
    loss_image: float | None


@dataclass(frozen=True)
class InpaintResult:
    """The clips that were drawn.

    Attributes:
        folder: of the PNGs and inpaint.json.
        clips: in the order of the shard set.
        clips_lacking: number of clips left out because they lack a modality.
        norm_pix_loss: whether the model predicts normalised patches, so that mean and contrast
            of each patch are drawn from the original.
    """

    folder: Path
    clips: tuple[DrawnClip, ...]
    clips_lacking: int
    norm_pix_loss: bool


def inpaint(options: InpaintOptions, on_progress: OnProgress = ignore) -> InpaintResult:
    """Write one PNG per clip, and inpaint.json.

    Args:
        options: which model, which clips, and what is hidden.
        on_progress: called with progress: the clips drawn.

    Raises:
        UserError: not a pretrained model, or a clip that is not there.
    """
    trained = load_trained(options.checkpoint)
    model = require_pretrained(trained)
    norm_pix_loss = was_normalised(trained, options.norm_pix_loss)
    shards = open_shards(options.shards, options, model.modalities)
    shards = chosen_clips(shards, options.video_ids, options.clips)
    device = choose_device(options.device)
    trained = trained.to(device)
    alone, one_by_one = World(0, 1, device), LoadOptions(workers=0, max_bad_samples=0, batch_size=1)
    loader = clip_loader(
        shards, trained.frontend, one_by_one, options.frame, alone, model.modalities
    )
    storage.make_folder(options.out)
    count = clip_counter(on_progress, alone, len(shards))
    drawn = []
    for batch in loader.epoch():
        inputs = trained.frontend(batch.to(device))
        found = fill_in(model, inputs.audio, inputs.image, options, norm_pix_loss)
        (video_id,) = batch.video_ids
        losses = (found[name].loss if name in found else None for name in BOTH)
        clip = DrawnClip(video_id, f"{sample_key(video_id)}.png", *losses)
        picture = draw(video_id, panels(found, trained.frontend), options, norm_pix_loss)
        storage.write_atomic(options.out / clip.file, picture)
        drawn.append(clip)
        count(1)
    facts = {
        "checkpoint": str(trained.file),
        "norm_pix_loss": norm_pix_loss,
        "mask_ratio": options.mask_ratio,
        "mask_mode": options.mask_mode,
        "seed": options.seed,
        "frame": options.frame,
        "clips": [asdict(clip) for clip in drawn],
    }
    storage.write_json(options.out / "inpaint.json", facts)
    return InpaintResult(options.out, tuple(drawn), shards.lacking, norm_pix_loss)


def was_normalised(trained: Trained, asked: bool | None) -> bool:
    """Whether the model was trained with `norm_pix_loss`.

    Raises:
        UserError: the checkpoint does not say and the user did not either.
    """
    stored = trained.metadata.get("norm_pix_loss")
    if asked is not None:
        return asked
    if stored is None:
        raise UserError(
            f"{trained.file}: does not say whether it was trained with norm_pix_loss. Give "
            "--norm-pix-loss (the published recipes) or --no-norm-pix-loss."
        )
    return stored == "1"


def chosen_clips(shards: ShardSet, video_ids: tuple[str, ...], count: int) -> ShardSet:
    """The clips of these names, else the first ones.

    Raises:
        UserError: no clip of such a name.
    """
    if not video_ids:
        return shards.subset(range(min(count, len(shards))))
    place = {shards.video_id(number): number for number in range(len(shards))}
    if strangers := [name for name in video_ids if name not in place]:
        raise UserError(f"{shards.location}: holds no clip {strangers[0]!r}.")
    return shards.subset(sorted({place[name] for name in video_ids}))


def panels(found: Mapping[Modality, Inpainting], frontend: FrontEnd) -> Panels:
    """Undo the front end's normalisation of the batch's one clip."""
    pictures = sounds = None
    if image := found.get("image"):
        shown = torch.stack([image.original, image.original, image.reconstructed]).squeeze(1)
        shown = shown * frontend.image_std + frontend.image_mean
        shown[1] = torch.where(image.hidden[0], _GREY, shown[1])
        pictures = shown.clamp(0, 1).permute(0, 2, 3, 1).float().cpu().numpy()
    if audio := found.get("audio"):
        shown = torch.stack([audio.original, audio.original, audio.reconstructed])[:, 0, 0]
        shown = shown * frontend.options.std + frontend.options.mean
        shown[1] = torch.where(audio.hidden[0, 0], torch.nan, shown[1])
        sounds = shown.float().cpu().numpy()
    return Panels(pictures, sounds)


def draw(video_id: str, shown: Panels, options: HidingOptions, norm_pix_loss: bool) -> bytes:
    """PNG: original, masked and reconstructed, the image above the spectrogram, as far as there
    are both."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = sum(each is not None for each in (shown.image, shown.audio))
    figure = Figure(figsize=(11, 3 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    note = ", patch means and contrasts from the original" * norm_pix_loss
    title = f"{video_id}: {options.mask_ratio:.0%} hidden ({options.mask_mode}){note}"
    figure.suptitle(title, parse_math=False)
    for column, name in enumerate(("original", "masked", "reconstructed")):
        if shown.image is not None:
            axes = figure.add_subplot(rows, 3, column + 1)
            axes.imshow(shown.image[column], interpolation="nearest")
            axes.set(title=name, xticks=[], yticks=[])
        if shown.audio is not None:
            axes = figure.add_subplot(rows, 3, column + 1 + 3 * (rows - 1))
            axes.set_facecolor("grey")
            axes.imshow(
                shown.audio[column],
                aspect="auto",
                origin="lower",
                extent=(0, shown.audio.shape[2] / _ROWS_A_SECOND, 0, shown.audio.shape[1]),
                interpolation="nearest",
                vmin=np.nanmin(shown.audio[0]),
                vmax=np.nanmax(shown.audio[0]),
            )
            axes.set(xlabel="seconds", ylabel="mel bin" if column == 0 else "")
            if shown.image is None:
                axes.set(title=name)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    return picture.getvalue()
