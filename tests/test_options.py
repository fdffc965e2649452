"""Options are stated once: flags, Python instances and recipes obey the same statement."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import click
import pytest
from click.testing import CliRunner

from avprep.cli.flags import flags
from avprep.errors import UserError
from avprep.option import Options, option, options_of


@dataclass(frozen=True)
class Share:
    """A share of a hundred."""

    percent: int

    @classmethod
    def parse(cls, text: str) -> Share:
        if not text.endswith("%"):
            raise UserError(f"--share {text!r}: give a share such as 5%.")
        return cls(int(text[:-1]))

    def __str__(self) -> str:
        return f"{self.percent}%"


@dataclass(frozen=True)
class Inner(Options):
    rate: float = option(0.5, "Rate.", above=0, below=1)
    kind: Literal["plain", "odd", "secret"] = option("plain", "Kind.", also=("secret",))


@dataclass(frozen=True)
class Outer(Options):
    out: Path = option(help="Folder to write.")
    clips: int | None = option(None, "Clips. [default: 32]", at_least=0, at_most=2**63 - 1)
    splits: tuple[str, ...] = option((), "Only this split.", flag="--split", metavar="NAME")
    epochs: tuple[int, int] | None = option(None, "First and last.", at_least=1)
    inner: Inner = field(default_factory=Inner)
    fixed: int = 7
    compact: bool = option(False, "Leave out what is empty.")
    noise: bool = option(True, "Add noise.", off="--silence")
    share: Share = option(Share(5), "Share.")
    place: int | Literal["first", "all"] = option("first", "Place.", at_least=0)
    title: str = option("", "Heading. [default: the folder's name]")


def parsed(*words: str) -> Outer:
    """What a command gets for the words of its command line."""
    got: list[Outer] = []

    @click.command()
    @click.argument("name")
    @flags(options=Outer)
    def command(name: str, options: Outer) -> None:
        got.append(options)

    command.main(["x", *words], standalone_mode=False)
    return got[0]


def test_a_command_gets_the_instance_that_python_code_would_make():
    assert parsed("--out", "o") == Outer(Path("o"))
    words = "--out o --clips 3 --split a --split b --epochs 1 2 --rate 0.25 --kind odd --compact"
    assert parsed(
        *words.split(), "--silence", "--share", "7%", "--place", "3", "--title", "T"
    ) == Outer(
        Path("o"), 3, ("a", "b"), (1, 2), Inner(0.25, "odd"), 7, True, False, Share(7), 3, "T"
    )
    assert parsed("--out", "o", "--place", "all").place == "all"


def test_help_says_what_the_statement_says():
    @click.command(context_settings={"terminal_width": 200, "max_content_width": 200})
    @flags(options=Outer, without=("title",))
    def command(options: Outer) -> None:
        pass

    said = CliRunner().invoke(command, "--help").output
    lines = [" ".join(line.split()) for line in said.splitlines()]
    assert lines[lines.index("Options:") + 1 : -1] == [
        "--out PATH Folder to write. [required]",
        "--clips INTEGER RANGE Clips. [default: 32] [0<=x<=9223372036854775807]",
        "--split NAME Only this split.",
        "--epochs INTEGER RANGE... First and last. [x>=1]",
        "--compact Leave out what is empty.",
        "--noise / --silence Add noise. [default: noise]",
        "--share TEXT Share. [default: 5%]",
        "--place TEXT Place. [default: first]",
        "--rate FLOAT RANGE Rate. [default: 0.5; 0<x<1]",
        "--kind [plain|odd] Kind. [default: plain]",
    ]  # fmt: skip


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"clips": -1}, "--clips -1: must be at least 0."),
    ({"clips": 2.5}, "--clips 2.5: must be a whole number."),
    ({"clips": True}, "--clips True: must be a whole number."),
    ({"splits": "train"}, "--split train: must be a list of values."),
    ({"splits": ["train", 3]}, "--split ['train', 3]: must be text."),
    ({"epochs": (1,)}, "--epochs (1,): must be 2 values."),
    ({"epochs": (0, 1)}, "--epochs (0, 1): must be at least 1."),
    ({"compact": "yes"}, "--compact yes: must be true or false."),
    ({"out": None}, "--out None: must be a path."),
    ({"title": 3}, "--title 3: must be text."),
    ({"inner": 0.5}, "inner must be Inner, not 0.5."),
    ({"place": "3"}, "--place 3: must be first, all or a whole number."),
    ({"place": -1}, "--place -1: must be at least 0."),
    ({"share": 5}, "--share 5: must be Share."),
    ({"share": "5"}, "--share '5': give a share such as 5%."),
]


@pytest.mark.parametrize(("values", "said"), REFUSED)
def test_python_code_obeys_types_bounds_and_choices(values, said):
    with pytest.raises(UserError) as caught:
        Outer(**{"out": "o", **values})
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"rate": 0}, "--rate 0: must be above 0."),
        ({"rate": 1.0}, "--rate 1.0: must be below 1."),
        ({"rate": float("nan")}, "--rate nan: must be a number."),
        ({"kind": "odder"}, "--kind odder: must be one of plain, odd."),
    ],
)
def test_open_bounds_and_choices_hold_for_changed_copies(values, said):
    with pytest.raises(UserError) as caught:
        replace(Inner(), **values)
    assert str(caught.value) == said


def test_values_are_converted_as_on_the_command_line():
    made = Outer("o", splits=["a"], share="7%")
    assert (made.out, made.splits, made.share) == (Path("o"), ("a",), Share(7))
    rate = Inner(rate=replace(Inner(), rate=0.25).rate).rate
    assert type(rate) is float
    assert Inner(kind="secret").kind == "secret"  # for Python code alone


def test_a_required_option_that_is_missing_is_named():
    with pytest.raises(click.MissingParameter, match="out"):
        parsed("--rate", "0.25")


def test_what_is_not_a_number_is_refused_on_the_command_line_too():
    with pytest.raises(UserError, match="--rate nan: must be a number"):
        parsed("--out", "o", "--rate", "nan")
    with pytest.raises(click.BadParameter, match="0 is not in the range"):
        parsed("--out", "o", "--rate", "0")
    with pytest.raises(click.BadParameter, match="'secret' is not one of"):
        parsed("--out", "o", "--kind", "secret")


def test_a_name_that_is_not_an_option_fails():
    with pytest.raises(TypeError, match="clip_count"):
        Outer(out=Path("o"), clip_count=3)  # type: ignore[call-arg]
    assert [stated.name for stated in options_of(Outer)][-2:] == ["rate", "kind"]


def test_a_switch_that_is_on_needs_a_flag_that_turns_it_off():
    @dataclass(frozen=True)
    class Wrong(Options):
        noise: bool = option(True, "Add noise.")

    with pytest.raises(TypeError, match="noise"):
        Wrong()
