"""`cavmae demo`: the main job, end to end, on a small made-up video set."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from avprep.cli.flags import flags
from avprep.option import Options, option


@dataclass(frozen=True)
class DemoOptions(Options):
    """What the demo does."""

    out: Path = option(Path("runs/demo"), "Folder for everything.")
    only_list: bool = option(False, "Print the commands without running them.", flag="--list")


@click.command()
@flags(options=DemoOptions)
def demo(options: DemoOptions) -> None:
    """Make videos, extract, shard, pretrain, retrieve, probe, inpaint, finetune, predict.

    Prints and times each command. At the end, and in OUT/summary.json, it compares the pretrained
    model with random weights, training from scratch, and chance. Takes a few minutes on two cores.
    An interrupted demo resumes when run again.

    \b
    Example:
      cavmae demo
      cavmae demo --list
    """
    from cavmae.demo import CommandFailed, demo_commands, run_demo

    if options.only_list:
        for _, command in demo_commands(str(options.out)):
            click.echo(command)
        return
    try:
        summary = run_demo(str(options.out), show_command, lambda line: click.echo(line, nl=False))
    except CommandFailed as error:
        click.echo(f"demo: {error}", err=True)
        click.get_current_context().exit(error.status)
    for line in described(options.out, summary):
        click.echo(line)


def show_command(stage: str, command: str) -> None:
    """Say what runs next."""
    heading = click.style(f"[{stage}] ", bold=True) if sys.stdout.isatty() else ""
    click.echo(f"\n{heading}$ {command}")


def described(out: Path, summary: dict[str, Any]) -> Iterator[str]:
    """The figures beside their baselines, and where everything lies."""
    from cavmae.demo import DIRECTIONS

    retrieval, knn, few = summary["retrieval"], summary["knn"], summary["few_labels"]
    yield f"\n{'on held-out clips':34}{'pretrained':>12}{'without':>12}{'chance':>12}"
    rows = [
        (
            f"retrieval R@10, {name.replace('_to_', ' → ')}",
            retrieval[name]["recall_at_10"],
            retrieval["random_start"][name]["recall_at_10"],
            retrieval["chance_recall_at_10"],
        )
        for name in DIRECTIONS
    ]
    rows += [
        ("k-NN accuracy, frozen features", knn["accuracy"], knn["random_start"], knn["chance"]),
        (
            "linear probe, 2 labels per class",
            few["probe"],
            few["probe_of_random_start"],
            few["chance"],
        ),
    ]
    for title, *figures in rows:
        yield f"{title:34}" + "".join(f"{figure:12.1%}" for figure in figures)
    every, scratch = summary["all_labels"], few["from_scratch"]
    yield f"{'from scratch, 2 labels per class':34}{'':12}{scratch:12.1%}{few['chance']:12.1%}"
    yield f"{'finetuned, all labels':34}{every['accuracy']:12.1%}{'':12}{every['chance']:12.1%}\n"
    seconds, cpu = summary["seconds"]["total"], summary["cpu_seconds"]["total"]
    failed = f"{summary['failed_clips']} (two files are broken on purpose)"
    for title, value in (
        ("time", f"{seconds:.0f} s, {cpu:.0f} CPU-seconds"),
        ("memory", f"{summary['largest_process_mb']} MB, the largest process"),
        ("failed clips", f"{failed}, see {out}/shards/train/failures.csv"),
        ("retrieval", f"{out}/retrieval/retrieval.html"),
        ("inpainting", ", ".join(summary["inpainting"])),
        ("loss curves", f"{out}/pretrain/curves.png, {out}/finetune/curves.png"),
        ("shards", f"{out}/shards/train, {out}/shards/test"),
        ("summary", f"{out}/summary.json"),
    ):
        yield f"{title:15} {value}"
