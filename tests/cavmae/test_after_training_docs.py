"""docs/after-training.md has every option of its commands, and no other."""

from __future__ import annotations

import re

import click
import pytest

from cavmae.cli import COMMANDS
from tests.conftest import REPOSITORY

TEXT = (REPOSITORY / "docs" / "after-training.md").read_text()
SHARED = {"--device", "--batch-size", "--workers", "--max-bad-samples"}


def options(command):
    """Names of a command's options, and its defaults that are plain words or numbers."""
    found = {}
    for parameter in COMMANDS[command].load().params:
        if isinstance(parameter, click.Option):
            for name in (*parameter.opts, *parameter.secondary_opts):
                found[name] = parameter.default
    return found


def section(command):
    head = {"knn": "## knn, and the linear probe"}.get(command, f"## {command}")
    return TEXT.split(f"\n{head}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("command", ["retrieve", "inpaint", "knn", "embed", "predict", "export"])
def test_options_and_defaults_of_the_text_are_those_of_the_command(command):
    rows = [line for line in section(command).splitlines() if line.startswith("| `--")]
    described = {name for row in rows for name in re.findall(r"--[a-z-]+", row.split("|")[1])}
    known = options(command)
    assert described == set(known) - SHARED
    for row in rows:
        _, name, default, *_ = (cell.strip(" `") for cell in row.split("|"))
        value = known[re.findall(r"--[a-z-]+", name)[0]]
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            expected = f"{value:g}" if isinstance(value, float) else str(value)
            assert default.split(":")[0] == expected, name


@pytest.mark.parametrize("command", ["retrieve", "inpaint", "knn", "embed", "predict"])
def test_shared_options_have_the_documented_defaults(command):
    rows = dict(re.findall(r"^\| `(--[a-z-]+) [A-Z]+` \| (\S*) \|", TEXT, re.MULTILINE))
    known = options(command)
    for name in SHARED & set(known):
        assert rows[name] == str(known[name]), name
