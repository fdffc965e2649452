"""`avprep labels`: make, check and download class CSVs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from avprep.cli.lazy import LazyCommand, LazyGroup
from avprep.wording import counted

if TYPE_CHECKING:
    from avprep.labels import LabelSet

_HERE = "avprep.cli.labels"
_PATH = click.Path(path_type=Path)
COMMANDS = {
    "folder": LazyCommand(f"{_HERE}:folder", "Class CSV from a folder's sub-folders."),
    "vggsound": LazyCommand(f"{_HERE}:vggsound", "VGGSound's 309 classes, as published."),
    "check": LazyCommand(f"{_HERE}:check", "Whether a class CSV is right, and what is odd in it."),
    "fetch": LazyCommand(f"{_HERE}:fetch", "Download AudioSet's or VGGSound's official CSVs."),
}


@click.group(cls=LazyGroup, table=COMMANDS)
def labels() -> None:
    """Class CSVs: index,mid,display_name. The index of a class is its place in the file.

    \b
    Example:
      avprep labels fetch audioset --out metadata/
      avprep labels vggsound vggsound.csv --out labels.csv
    """


@click.command()
@click.argument("root", metavar="DIR", type=_PATH)
@click.option("--out", type=_PATH, required=True, help="Class CSV to write.")
def folder(root: Path, out: Path) -> None:
    """Write a class CSV of the classes in DIR, sorted by name: see `avprep manifest folder`.

    \b
    Example:
      avprep labels folder videos/train --out labels.csv
    """
    from avprep.clips import discover_clips, is_writable
    from avprep.errors import UserError
    from avprep.labels import label_set_from_names
    from avprep.manifest.sources.folder import places_of
    from avprep.progress import ProgressBar

    with ProgressBar("labels", "file") as bar:
        clips = discover_clips(root, on_file=bar.update)
    names = {place.label for place in places_of(clips, root)} - {""}
    if not names:
        raise UserError(f"{root}: its videos lie in no sub-folder, so there are no classes.")
    for name in names:
        if not is_writable(name):
            raise UserError(f"{root / name}: a name that is not UTF-8; rename the folder.")
    publish(label_set_from_names(names), out)


@click.command()
@click.argument("csv_file", metavar="[CSV]", type=_PATH, required=False)
@click.option("--out", type=_PATH, required=True, help="Class CSV to write.")
def vggsound(csv_file: Path | None, out: Path) -> None:
    """Write VGGSound's 309 classes in their published order, and check that CSV names no other.

    \b
    Example:
      avprep labels vggsound vggsound.csv --out labels.csv
    """
    from avprep.labels import vggsound_labels
    from avprep.manifest.sources.vggsound import read_vggsound

    label_set, notes = vggsound_labels(), []
    if csv_file is not None:
        found = read_vggsound(csv_file, label_set).notes
        found.refuse_bad_rows(csv_file)
        notes = found.lines(csv_file)
    publish(label_set, out)
    for note in notes:
        click.echo(note)


@click.command()
@click.argument("csv_file", metavar="CSV", type=_PATH)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def check(csv_file: Path, as_json: bool) -> None:
    """Check the class CSV: header, numbering, and every mid once; errors name the line.

    Display names that two classes share are allowed, and listed: such a class can be named by its
    mid only.

    \b
    Example:
      avprep labels check class_labels_indices.csv
    """
    from avprep.labels import read_label_csv

    label_set = read_label_csv(csv_file)
    shared = sorted({name for name in label_set.names if label_set.names.count(name) > 1})
    if as_json:
        click.echo(json.dumps({"classes": len(label_set), "shared_names": shared}))
        return
    click.echo(f"{csv_file}: {counted(len(label_set), 'class')}")
    for name in shared:
        click.echo(f"{label_set.names.count(name)} classes are called {name!r}")


@click.command()
@click.argument("data_set", type=click.Choice(["audioset", "vggsound"]))
@click.option("--out", type=_PATH, required=True, help="Folder for the files.")
@click.option(
    "--file", "files", multiple=True, help="Only this file. May be given several times. [all]"
)
@click.option("--base-url", help="Fetch BASE_URL/FILE instead of the authors' addresses.")
@click.option(
    "--sha256",
    "digests",
    multiple=True,
    metavar="FILE=HEX",
    help="Digest that a file must have. May be given several times.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    help="Seconds without a byte after which an attempt is given up.",
)
@click.option(
    "--retries",
    type=click.IntRange(min=0),
    default=4,
    show_default=True,
    help="Further attempts at a file, with a growing pause before each.",
)
def fetch(
    data_set: str,
    out: Path,
    files: tuple[str, ...],
    base_url: str | None,
    digests: tuple[str, ...],
    timeout: float,
    retries: int,
) -> None:
    """Download the CSVs of AudioSet or VGGSound into a folder, and print each file's sha256.

    A file gets its name when all of it has arrived. One that is there is kept. The authors publish
    no digests; note the ones printed here, and give them with --sha256 on other machines.

    \b
    Example:
      avprep labels fetch audioset --out metadata/
      avprep labels fetch audioset --out metadata/ --file class_labels_indices.csv
    """
    from avprep.errors import UserError, WorkFailed
    from avprep.fetch import SOURCES, FetchOptions, fetch_file
    from avprep.labels import read_label_csv
    from avprep.progress import ProgressBar

    sources = SOURCES[data_set]
    wanted = files or tuple(sources)
    expected: dict[str, str] = {}
    for name, digest in map(parse_digest, digests):
        if expected.setdefault(name, digest) != digest:
            raise UserError(f"--sha256: {name} has two digests, {expected[name]} and {digest}.")
    for name in (*wanted, *expected):
        if name not in sources:
            raise UserError(f"{name!r}: {data_set} has no such file; it has {', '.join(sources)}.")
    options = FetchOptions(timeout=timeout, retries=retries)
    for name in wanted:
        url = f"{base_url.rstrip('/')}/{name}" if base_url else sources[name]
        with ProgressBar(name, "B") as bar:
            fetched = fetch_file(url, out / name, expected.get(name), options, bar.reach)
        if name.startswith("class_labels"):
            try:
                read_label_csv(fetched.path)
            except UserError as error:
                if fetched.found:
                    raise UserError(f"{error} Delete it to fetch it again.") from error
                fetched.path.unlink()
                raise WorkFailed(f"{url}: sends no class CSV: {error}") from error
        state = "was there" if fetched.found else "fetched"
        click.echo(f"{fetched.path}: {state}, {fetched.size} bytes, sha256 {fetched.sha256}")


def parse_digest(text: str) -> tuple[str, str]:
    """`FILE=HEX` → both.

    Raises:
        UserError: not of this form.
    """
    from avprep.errors import UserError

    name, equals, digest = text.partition("=")
    if not equals:
        raise UserError(f"--sha256 {text!r}: give FILE=HEX, as in vggsound.csv=0123….")
    return name, digest


def publish(label_set: LabelSet, out: Path) -> None:
    """Write a class CSV and say so.

    Raises:
        UserError: the file is there and holds other classes: manifests may count on it.
    """
    from avprep.errors import UserError
    from avprep.labels import read_label_csv, write_label_csv

    if out.exists() and read_label_csv(out) != label_set:
        raise UserError(f"{out}: holds other classes. Delete it, or choose another --out.")
    write_label_csv(out, label_set)
    click.echo(f"{out}: {counted(len(label_set), 'class')}")
