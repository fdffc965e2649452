"""`cavmae convert`: checkpoints from one format to another."""

from __future__ import annotations

from pathlib import Path

import click

# What is known of a model besides its weights and its size.
_KEPT = frozenset(
    (
        *("fbank_mean", "fbank_std", "norm_pix_loss"),
        *("mode", "criterion", "labels", "label_names"),
    )
)


@click.command()
@click.argument("src", type=click.Path(path_type=Path))
@click.argument("dst", type=click.Path(path_type=Path))
@click.option("--vision-mae", is_flag=True, help="SRC is a vision MAE: make initial weights of it.")
@click.option(
    "--module-prefix/--no-module-prefix",
    default=True,
    show_default=True,
    help="Names in a .pth begin with module., as in published files.",
)
@click.option(
    "--audio-frames",
    type=click.IntRange(min=16),
    help="Interpolate positions for clips of so many fbank rows. [default: as SRC]",
)
@click.option(
    "--image-size",
    type=click.IntRange(min=16),
    help="Interpolate positions for images of so many pixels. [default: as SRC]",
)
@click.option("--audio-only", is_flag=True, help="Leave the image weights of a classifier out.")
def convert(
    src: Path,
    dst: Path,
    vision_mae: bool,
    module_prefix: bool,
    audio_frames: int | None,
    image_size: int | None,
    audio_only: bool,
) -> None:
    """Convert the checkpoint SRC to DST: published .pth to .safetensors, or back.

    The endings of the names say the formats. Every tensor must be there and fit, and nothing
    else; else an error tells the difference.

    \b
    Example:
      cavmae convert audio_model.25.pth cavmae-base.safetensors
      cavmae convert runs/finetune finetuned.pth
      cavmae convert --vision-mae mae_pretrain_vit_base_full.pth start.safetensors
    """
    from avprep import storage
    from avprep.errors import UserError
    from cavmae.checkpoints import (
        load_checkpoint,
        read_metadata,
        read_weights,
        save_model,
        save_published,
        weights_file,
    )
    from cavmae.checkpoints.resize import resized
    from cavmae.checkpoints.vision_mae import from_vision_mae
    from cavmae.model import CAVMAE, CAVMAEClassifier

    if dst.suffix not in (".safetensors", ".pth"):
        raise UserError(f"{dst}: the name must end in .safetensors or .pth.")
    if audio_only and dst.suffix == ".pth":
        raise UserError(f"{dst}: --audio-only needs a .safetensors; a .pth holds whole models.")
    file = weights_file(src)
    kept: dict[str, str] = {}
    model: CAVMAE | CAVMAEClassifier
    if vision_mae:
        model = from_vision_mae(read_weights(file)[0], str(file))
    else:
        model = load_checkpoint(file)
        kept = {name: value for name, value in read_metadata(file).items() if name in _KEPT}
    if audio_frames or image_size:
        model = resized(model, audio_frames, image_size)
    if audio_only:
        if not isinstance(model, CAVMAEClassifier):
            raise UserError(f"{file}: --audio-only is for classifiers; this is a pretrained model.")
        model.drop_images()
        kept["mode"] = "audioonly"
    storage.make_folder(dst.parent)
    if dst.suffix == ".safetensors":
        save_model(dst, model, kept)
    else:
        save_published(dst, model, module_prefix)
    kind = "classifier" if isinstance(model, CAVMAEClassifier) else "pretrained model"
    parameters = sum(value.numel() for value in model.state_dict().values())
    click.echo(f"{dst}: {kind}, {parameters / 1e6:.1f} M parameters")
