"""docs/after-training.md has every option of its commands, and no other."""

from __future__ import annotations

import re

import pytest

from cavmae.cli import COMMANDS
from tests.conftest import REPOSITORY
from tests.documents import option_defaults, wrong_defaults

TEXT = (REPOSITORY / "docs" / "after-training.md").read_text()
SHARED = {
    *("--device", "--batch-size", "--workers", "--max-bad-samples"),
    *("--classes", "--split", "--select", "--retries", "--timeout", "--cache-dir", "--cache-size"),
}


def options(command):
    return option_defaults(COMMANDS[command].load())


def section(command):
    head = {"knn": "## knn, and the linear probe"}.get(command, f"## {command}")
    return TEXT.split(f"\n{head}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize(
    "command",
    [
        "eval",
        "compare",
        "retrieve",
        "inpaint",
        "knn",
        "probe",
        "embed",
        "predict",
        "export",
        "push",
    ],
)
def test_options_and_defaults_of_the_text_are_those_of_the_command(command):
    rows = [line for line in section(command).splitlines() if line.startswith("| `--")]
    described = {name for row in rows for name in re.findall(r"--[a-z-]+", row.split("|")[1])}
    known = options(command)
    assert described == set(known) - SHARED
    assert not wrong_defaults(section(command), known)


@pytest.mark.parametrize(
    "command", ["eval", "retrieve", "inpaint", "knn", "probe", "embed", "predict"]
)
def test_shared_options_have_the_documented_defaults(command):
    table = TEXT.split("\n## ")[0]
    known = {name: value for name, value in options(command).items() if name in SHARED}
    assert all(f"| `{name} " in table for name in known)
    assert not wrong_defaults(table, known)
