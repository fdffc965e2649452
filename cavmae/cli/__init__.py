"""The `cavmae` command: a table of commands, each imported only when used."""

from __future__ import annotations

import logging

import click

from avprep.cli.lazy import LazyCommand, LazyGroup, run_group

COMMANDS = {
    "pretrain": LazyCommand("cavmae.cli.pretrain:pretrain", "Train CAV-MAE on a shard set."),
    "finetune": LazyCommand("cavmae.cli.finetune:finetune", "Train a classifier on a shard set."),
    "folds": LazyCommand("cavmae.cli.folds:folds", "Finetune and evaluate over folds."),
    "eval": LazyCommand("cavmae.cli.eval:evaluate", "Accuracy, mAP, AUC and d′ of a classifier."),
    "compare": LazyCommand("cavmae.cli.compare:compare", "Whether one classifier beats another."),
    "average": LazyCommand("cavmae.cli.average:average", "Mean of several checkpoints' weights."),
    "convert": LazyCommand("cavmae.cli.convert:convert", "Published .pth ↔ safetensors."),
    "demo": LazyCommand("cavmae.cli.demo:demo", "The main job on a small made-up video set."),
    "stats": LazyCommand("cavmae.cli.stats:stats", "fbank mean and std of a shard set."),
    "retrieve": LazyCommand(
        "cavmae.cli.retrieve:retrieve", "Retrieve images by sound, and sounds by image."
    ),
    "inpaint": LazyCommand("cavmae.cli.inpaint:inpaint", "Pictures of what a model fills in."),
    "knn": LazyCommand("cavmae.cli.knn:knn", "A nearest-neighbour probe of a model's features."),
    "probe": LazyCommand(
        "cavmae.cli.probe:probe", "Linear and nearest-neighbour probes of several models."
    ),
    "embed": LazyCommand("cavmae.cli.embed:embed", "Features of every clip, in one file."),
    "predict": LazyCommand("cavmae.cli.predict:predict", "The most probable labels of videos."),
    "push": LazyCommand(
        "cavmae.cli.push:push", "Push a model and its card to the Hugging Face hub."
    ),
    "export": LazyCommand("cavmae.cli.export:export", "A classifier as one PyTorch program."),
}


@click.group(cls=LazyGroup, table=COMMANDS, context_settings={"max_content_width": 100})
@click.version_option(package_name="avprep-cavmae", prog_name="cavmae")
def group() -> None:
    """Pretrain, finetune and evaluate CAV-MAE straight from WebDataset shards.

    \b
    Example:
      cavmae pretrain --shards shards/train --out runs/pretrain
      cavmae finetune --shards shards/train --val-shards shards/test \\
          --init runs/pretrain --out runs/finetune
      cavmae eval --shards shards/test --checkpoint runs/finetune
    """


def main() -> None:
    """Entry point of the `cavmae` command."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("cavmae").setLevel(logging.INFO)
    run_group(group, "cavmae")
