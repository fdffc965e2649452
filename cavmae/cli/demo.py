"""`cavmae demo`: the main job, end to end, on a small made-up video set."""

from __future__ import annotations

import click


@click.command()
@click.option(
    "--out",
    type=click.Path(),
    default="runs/demo",
    show_default=True,
    help="Folder for everything.",
)
@click.option("--list", "only_list", is_flag=True, help="Print the commands and run none.")
def demo(out: str, only_list: bool) -> int:
    """Make videos, extract, shard, pretrain, retrieve, inpaint, finetune, predict.

    Every stage is a command that could be typed; they are shown and timed. What pretraining is
    worth stands at the end and in OUT/summary.json, beside the same model at its random start,
    trained from scratch, and chance. Takes a few minutes on two cores. An interrupted demo resumes
    when run again.

    \b
    Example:
      cavmae demo
      cavmae demo --list
    """
    from cavmae.demo import demo_commands, run_demo

    if only_list:
        for _, command in demo_commands(out):
            click.echo(command)
        return 0
    return run_demo(out)
