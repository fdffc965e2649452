"""`avprep manifest`: build and handle manifests."""

from __future__ import annotations

from pathlib import Path

import click

from avprep.cli.lazy import LazyCommand, LazyGroup

COMMANDS = {
    "folder": LazyCommand("avprep.cli.manifest:folder", "From a folder: sub-folders are classes."),
}


@click.group(cls=LazyGroup, table=COMMANDS)
def manifest() -> None:
    """Build a manifest: the JSON list of clips and labels that `avprep shard` packs.

    \b
    Example:
      avprep manifest folder videos/ --out manifest.json
    """


@click.command()
@click.argument("root", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Manifest: .json or .jsonl."
)
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    help="Class CSV to write. [default: labels.csv beside the manifest]",
)
@click.option(
    "--extracted",
    type=click.Path(path_type=Path),
    help="Output of `avprep extract` for the same folder; shards are packed from its files.",
)
def folder(root: Path, out: Path, labels: Path | None, extracted: Path | None) -> None:
    """List the videos under DIR; each first-level sub-folder is a class.

    Videos directly in DIR stay unlabelled, which is enough to pretrain on.

    \b
    Example:
      avprep manifest folder videos/ --out manifest.json
    """
    from avprep.errors import UserError
    from avprep.labels import write_label_csv
    from avprep.manifest.folder import folder_manifest
    from avprep.manifest.model import write_manifest

    if extracted is not None and not (extracted / "audio").is_dir():
        raise UserError(f"{extracted}: no audio/ in it; give what `avprep extract` wrote.")
    clips, label_set = folder_manifest(root, extracted)
    write_manifest(out, clips)
    label_csv = labels or out.with_name("labels.csv")
    write_label_csv(label_csv, label_set)
    unlabelled = sum(not clip.labels for clip in clips)
    click.echo(f"{out}: {len(clips)} clips, {len(label_set)} classes in {label_csv}")
    if label_set.mids and unlabelled:
        click.echo(f"{unlabelled} videos lie in no class folder and stay unlabelled")
