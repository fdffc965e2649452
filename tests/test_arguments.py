"""What is typed counts, or is refused: repeated options, URLs for paths, misspelt words."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from avprep.cli import group as avprep
from avprep.cli.arguments import check_arguments
from avprep.errors import UserError
from cavmae.cli import group as cavmae
from tests.test_commands import run


def leaves(group: click.Command, *words: str) -> Iterator[tuple[str, click.Command]]:
    """Every command below a group, with the words that call it."""
    if not isinstance(group, click.Group):
        yield " ".join(words), group
        return
    context = click.Context(group)
    for word in group.list_commands(context):
        command = group.get_command(context, word)
        assert command is not None
        yield from leaves(command, *words, word)


COMMANDS = dict([*leaves(avprep, "avprep"), *leaves(cavmae, "cavmae")])


def typed(option: click.Option, values: str) -> list[str]:
    """An option as it is typed, with a letter of `values` for each of its values."""
    return [option.opts[0], *([] if option.is_flag else values[: option.nargs])]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_that_counts_once_is_refused_twice(name):
    command, context = COMMANDS[name], click.Context(cavmae)
    for option in command.params:
        if not isinstance(option, click.Option):
            continue
        words = [*typed(option, "ab"), *typed(option, "cd")]
        check_arguments(command, context, typed(option, "ab"))
        if option.multiple:
            check_arguments(command, context, words)
        else:
            with pytest.raises(UserError, match=f"{option.opts[0]}.* and {option.opts[0]}"):
                check_arguments(command, context, words)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("cavmae eval --shards A --shards B --checkpoint R", "--shards A and --shards B:"),
        ("cavmae knn --val-shards A --val-shards=B", "--val-shards A and --val-shards B:"),
        ("avprep shard m.json --out A --workers 1 --workers=2", "--workers 1 and --workers 2:"),
        ("avprep labels fetch vggsound --out A x --out B", "--out A and --out B:"),
        ("cavmae finetune --balanced --shards A --uniform", "--balanced and --uniform:"),
        (
            "cavmae finetune --average-epochs 1 2 --average-epochs 1 3",
            "--average-epochs 1 2 and --average-epochs 1 3:",
        ),
        ("cavmae eval --config demo --config demo --shards A", "--config demo and --config demo:"),
        (
            "cavmae predict --checkpoint R a.mp4 https://x.org/b.mp4",
            "VIDEOS https://x.org/b.mp4 is a URL;",
        ),
        ("cavmae demo --out s3://b/demo", "--out s3://b/demo is a URL;"),
        (
            "avprep manifest check file:///data/m.json",
            "is a URL; it must be a path on this machine. Give /data/m.json.",
        ),
        (
            "avprep labels fetch vggsound --out x --sha256 vggsound.csv=a --sha256 vggsound.csv=b",
            "vggsound.csv has two digests, a and b.",
        ),
    ],
)
def test_what_cannot_count_is_one_line_and_exit_code_2(line, said):
    result = run(*line.split())
    assert result.returncode == 2
    (told,) = result.stderr.splitlines()
    assert told.startswith("Error: ")
    assert said in told


def test_options_that_may_repeat_and_words_after_two_dashes_are_left_alone(tmp_path):
    result = run("avprep", "extract", "--out", tmp_path, "--", "--out")
    assert "--out: no such" in result.stderr
    splits = ("--split", "a", "--split", "b")
    result = run("cavmae", "stats", tmp_path / "nowhere", *splits)
    assert "nowhere: no such folder" in result.stderr


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("avprep shrad m.json", "shard"),
        ("avprep manifest fodler videos", "folder"),
        ("avprep labels fecth audioset", "fetch"),
        ("cavmae pretrian --shards A", "pretrain"),
        ("cavmae pretrain --shard A", "--shards"),
    ],
)
def test_a_misspelt_word_gets_the_nearest_one(line, meant):
    result = run(*line.split())
    assert result.returncode == 2
    assert f"'{meant}'" in result.stderr


def test_a_word_like_no_other_gets_no_suggestion():
    told = run("avprep", "xyzzy").stderr
    assert "No such command 'xyzzy'.\n" in told
