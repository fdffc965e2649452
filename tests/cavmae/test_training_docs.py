"""docs/training.md knows every option of the commands it describes, and no others."""

from __future__ import annotations

import re

import pytest

from cavmae.cli import COMMANDS
from tests.conftest import REPOSITORY
from tests.documents import option_defaults, wrong_defaults

TEXT = (REPOSITORY / "docs" / "training.md").read_text()
DESCRIBED = ("pretrain", "finetune", "eval", "average", "stats")
# Of other programs that the examples use.
FOREIGN = {
    *("--standalone", "--nproc-per-node", "--nnodes", "--rdzv-backend", "--rdzv-endpoint"),
    "--max-restarts",
    *("--nodes", "--ntasks-per-node", "--cpus-per-task", "--kill-on-bad-exit", "--wait"),
}


def options_of(name: str) -> set[str]:
    return set(option_defaults(COMMANDS[name].load()))


@pytest.mark.parametrize("name", ["pretrain", "finetune", "average", "stats"])
def test_every_option_is_described(name):
    missing = {option for option in options_of(name) if not mentions(option)}
    assert not missing


@pytest.mark.parametrize("name", ["pretrain", "finetune"])
def test_defaults_of_the_tables_are_those_of_the_commands(name):
    assert not wrong_defaults(TEXT, option_defaults(COMMANDS[name].load()))


def test_nothing_is_described_that_is_not_there():
    known = set().union(*map(options_of, DESCRIBED)) | FOREIGN
    assert set(re.findall(r"--[a-z][a-z0-9-]*[a-z0-9]", TEXT)) <= known


def mentions(option: str) -> bool:
    return re.search(rf"{option}(?![a-z0-9-])", TEXT) is not None
