"""README and docs as data: the fenced blocks in them, and the commands in those."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from tests.conftest import REPOSITORY

PAGES = sorted(
    [
        REPOSITORY / "README.md",
        *(page for page in (REPOSITORY / "docs").rglob("*.md") if page.name != "cli.md"),
        *(REPOSITORY / "manifests").glob("*.md"),
        *(REPOSITORY / "pipelines").rglob("*.md"),
    ]
)
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
_COMMAND = re.compile(r"^(?:\$ )?(?:\S.* -m )?((?:avprep|cavmae)\s.*)$")
_FIXED = 18  # letters by which a message is known
_INLINE = re.compile(r"`((?:[^`]* -m )?(?:avprep|cavmae)\s[^`…][^`]*)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(REPOSITORY)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        yield Block(page, line, match.group(1), match.group(2))


def inline_commands(page: Path) -> Iterator[Block]:
    """The commands within the sentences of a page, as blocks of one line."""
    text = _FENCE.sub(lambda match: "\n" * match[0].count("\n"), page.read_text(encoding="utf-8"))
    for match in _INLINE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        yield Block(page, line, "sh", match[1].replace("\n", " "))


def commands_under(page: Path, heading: str) -> list[list[str]]:
    """The whole commands of the section under a heading, in order, as words."""
    section = (
        page.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    )
    assert section, f"{page} has no section {heading!r}"
    fenced = [Block(page, 0, match.group(1), match.group(2)) for match in _FENCE.finditer(section)]
    found = [words for block in fenced for words in commands(block)]
    return [words for words in found if "…" not in words]


def links(page: Path) -> Iterator[str]:
    """Targets of the page's links, outside fenced blocks."""
    for match in _LINK.finditer(_FENCE.sub("", page.read_text(encoding="utf-8"))):
        yield match.group(1)


def commands(block: Block) -> Iterator[list[str]]:
    """The `avprep` and `cavmae` commands of a block, as words; `…` stands for what is left out.

    A command begins its line, or follows `-m` there, as in `torchrun … -m cavmae pretrain …`.
    """
    if block.language not in ("", "sh", "bash", "console"):
        return
    for line in block.text.replace("\\\n", " ").splitlines():
        match = _COMMAND.match(line)
        if match:
            yield shlex.split(match.group(1), comments=True)


def option_defaults(command: click.Command) -> dict[str, Any]:
    """Every long option of a command with its default."""
    return {
        name: parameter.default
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("--")
    }


def wrong_defaults(text: str, known: Mapping[str, Any]) -> list[str]:
    """Rows of the option tables in a text whose default is not the command's.

    A row is `| `--one A`, `--two` | 1, 2 | … |`. Defaults that are words or numbers are compared;
    what the default of a flag or of no value is called is free.

    Args:
        text: of a page, or of a part of it.
        known: see `option_defaults`; rows of other options do not count.
    """
    wrong = []
    for row in re.findall(r"^\| `--.*$", text, re.M):
        _, named, told, *_ = row.split("|")
        names = re.findall(r"`(--[a-z0-9-]+)", named)
        defaults = told.split(", ") if len(names) > 1 else [told]
        for number, name in enumerate(names):
            value = known.get(name)
            if isinstance(value, bool) or not isinstance(value, (str, int, float)):
                continue
            default = defaults[number] if len(defaults) == len(names) else ""
            if not _says(default.strip(" `"), value):
                wrong.append(f"{name}: {default.strip()!r} in {row}, {value!r} in the command")
    return wrong


def _says(text: str, value: str | float) -> bool:
    """Whether `6`, `30 s` or `0: all clips` stands for a value."""
    first = re.split(r"[: ]", text)[0]
    if isinstance(value, str):
        return first == value
    try:
        return float(first) == value
    except ValueError:
        return False


_ANY = "\0"  # what stands in a template for a value


def messages() -> Iterator[re.Pattern[str]]:
    """Every text that the packages can print and that has enough fixed words to be known by."""
    for package in ("avprep", "cavmae"):
        for path in (REPOSITORY / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                template = _template(node)
                if len(template.replace(_ANY, "")) >= _FIXED:
                    yield re.compile(re.escape(template).replace(re.escape(_ANY), ".*"))


def _template(node: ast.AST) -> str:
    """A literal text or f-string, with `_ANY` for each value; empty for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_template(part) or _ANY for part in node.values)
    return ""
