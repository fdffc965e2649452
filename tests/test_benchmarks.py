"""The benchmarks run, and what they found is what the pages show."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from importlib import import_module

import pytest

from tests.conftest import REPOSITORY
from tests.faults.conftest import environment, without_torch

BEGIN, END = "<!-- benchmarks -->\n", "<!-- /benchmarks -->"
SMALLEST = {
    "archives": ("--clips", "2", "--rounds", "1"),
    "checkpoints": ("--model", "tiny", "--rounds", "1"),
    "duplicates": ("--clips", "6", "--copies", "2", "--hashes", "2000"),
    "extract": ("--parts", "kinds", "--kinds", "H.264 360p", "--clips", "2", "--rounds", "1"),
    "loader": ("--quick",),
    "manifest": ("--clips", "500", "--rounds", "1"),
    "model": (
        *("--model", "tiny", "--rounds", "1"),
        *("--sides", "published-fp32", "ours-fp32"),
    ),
    "quality": ("--clips", "20", "--rounds", "1"),
    "report": ("--clips", "1000", "--rounds", "1"),
    "retrieval": ("--clips", "30", "--many", "60", "--rounds", "1"),
    "shard": ("--clips", "2", "--rounds", "1"),
    "start_up": ("--rounds", "1"),
}
WITH_TORCH = {"checkpoints", "loader", "model", "retrieval", "start_up"}


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")


@pytest.mark.parametrize("name", SMALLEST)
def test_a_benchmark_runs_and_hands_over_its_rows(name, tmp_path):
    rows = tmp_path / "rows.json"
    script = REPOSITORY / "benchmarks" / f"{name}.py"
    command = [sys.executable, str(script), *SMALLEST[name], "--rows", str(rows)]
    result = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=environment() if name in WITH_TORCH else without_torch(),
    )
    assert result.returncode == 0, result.stderr
    assert import_module("rows").read_rows(rows)


def test_learning_is_skipped_without_its_clips(tmp_path):
    script = REPOSITORY / "benchmarks" / "learning.py"
    command = [sys.executable, str(script), "--grid", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, f"skipped: {tmp_path} is not there\n")


def test_real_clips_are_left_out_where_there_are_none(tmp_path):
    script = REPOSITORY / "benchmarks" / "extract.py"
    command = [sys.executable, str(script), "--parts", "real", "--real", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True)
    said = f"skipped: {tmp_path} has no real clips in media/ and grid/videos/\n"
    assert (result.returncode, result.stdout) == (0, said)


def test_learning_with_few_labels_takes_other_clips_for_every_seed_and_none_of_the_test():
    learning = import_module("learning")
    rows = [
        {"path": f"{number}.mp4", "split": "test" if number % 5 == 0 else "train", "word": word}
        for word in ("now", "soon")
        for number in range(100)
    ]
    dealt = Counter((label, split) for _, label, split in learning.labelled(rows, "word"))
    for word in ("now", "soon"):
        assert [dealt[word, f"few-{seed}"] for seed in range(3)] == [learning.FEW] * 3
        assert (dealt[word, "rest"], dealt[word, "test"]) == (20, 20)
    tested = {path for path, _, split in learning.labelled(rows, "word") if split == "test"}
    assert tested == {f"{number}.mp4" for number in range(0, 100, 5)}


def test_every_row_names_a_script_and_readme_shows_some_of_them():
    readme, page = (table(name) for name in ("README.md", "docs/benchmarks.md"))
    assert len(page) > 15
    shown = [row[:4] for row in page]
    assert 5 < len(readme) < 10
    assert all(row[:4] in shown for row in readme)
    for *_, script in page[1:]:
        assert (REPOSITORY / "benchmarks" / script.strip("`")).is_file()


def table(page: str) -> list[list[str]]:
    """The cells of the table between the marks, the head first."""
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    between = text.partition(BEGIN)[2].partition(END)[0]
    rows = [line for line in between.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]
