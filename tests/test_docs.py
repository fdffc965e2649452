"""What the docs say holds: options exist, links lead somewhere, code runs, the site builds."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from avprep.errors import UserError
from tests.avprep.test_archives import pack
from tests.avprep.test_pieces import make_video
from tests.conftest import REPOSITORY, run_command
from tests.documents import (
    PAGES,
    Block,
    blocks,
    commands,
    commands_under,
    inline_commands,
    links,
    messages,
)
from tests.faults.test_stores import server  # noqa: F401 (a fixture)

BLOCKS = [block for page in PAGES for block in blocks(page)]


@pytest.mark.parametrize("name", ["make_cli", "make_expected"])
def test_a_written_page_is_what_its_script_writes(name):
    path = REPOSITORY / "docs" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.render(), f"python docs/{name}.py"


each_page = pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY))
)


@each_page
def test_links_lead_to_files_that_exist(page):
    for target in links(page):
        path = target.partition("#")[0]
        if path and "://" not in path:
            assert (page.parent / path).exists(), f"{page.name} links to {target}"


@each_page
def test_documented_commands_have_these_words_and_options(page, monkeypatch):
    monkeypatch.chdir(REPOSITORY)  # recipes are named from there
    faults = [
        f"{block}: {' '.join(words)}: {fault}"
        for block in blocks(page)
        for words in commands(block)
        if (fault := fault_in(words, is_complete="…" not in words))
    ]
    assert faults == []


@each_page
def test_commands_in_sentences_have_these_words_and_options(page, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    faults = [
        f"{block}: {' '.join(words)}: {fault}"
        for block in inline_commands(page)
        for words in commands(block)
        if (fault := fault_in(words, is_complete=False))
    ]
    assert faults == []


_UNFINISHED = (click.MissingParameter, click.BadOptionUsage)  # an option, or the value of one


def fault_in(words: list[str], is_complete: bool) -> str:
    """What click says against a command; where it is not complete, parts of it may be missing."""
    if words[0] == "avprep":
        from avprep.cli import group
    else:
        from cavmae.cli import group
    arguments = [word for word in words[1:] if word != "…"]
    command: click.Command = group
    context = click.Context(group, info_name=words[0])
    while isinstance(command, click.Group):
        if not arguments:
            return "no command" if is_complete else ""
        child = command.get_command(context, arguments[0])
        if child is None:
            return f"no command {arguments[0]!r}"
        command, (name, *arguments) = child, arguments
        context = click.Context(command, context, info_name=name)
    try:
        command.make_context(context.info_name, arguments, parent=context.parent)
    except click.exceptions.Exit:
        return ""
    except (click.ClickException, UserError) as error:
        # Where something is left out, an option that is required may be.
        is_allowed = isinstance(error, _UNFINISHED) and not is_complete
        return "" if is_allowed else str(error)
    return ""


RUNNABLE = [block for block in BLOCKS if block.language == "python"]


@pytest.mark.parametrize("block", RUNNABLE, ids=str)
def test_documented_python_runs(block: Block, documented_folder: Path, monkeypatch):
    monkeypatch.chdir(documented_folder)
    code = block.text.replace('"cuda"', '"cpu"')
    exec(compile(code, str(block), "exec"), {"__name__": "__main__"})


QUICK_START = REPOSITORY / "docs" / "index.md"


def test_what_readme_shows_is_shown_and_run_in_the_quick_start():
    sections = ("Your own folder", "After training")
    known = [words for section in sections for words in commands_under(QUICK_START, section)]
    path = commands_under(REPOSITORY / "README.md", "The path")
    assert len(path) == 6
    assert all(words in known for words in path)


def test_what_the_quick_start_shows_after_training_runs(documented_folder):
    shown = commands_under(QUICK_START, "After training")
    assert [words[1] for words in shown] == ["retrieve", "inpaint", "predict"]
    for words in shown:
        run_command(documented_folder, " ".join(words[:2]), *words[2:])


def test_what_is_shown_of_audioset_runs(shown_audioset: Path):
    words, *_ = commands_under(REPOSITORY / "docs" / "audioset.md", "Manifests")
    run_command(shown_audioset, " ".join(words[:2]), *words[2:])
    (entry,) = json.loads((shown_audioset / "balanced.json").read_text())["data"]
    assert entry["labels"] == "/m/09x0r"


OWN_VIDEOS = ["A folder", "Archives", "An object store", "A table", "Tars of video2dataset"]


@pytest.mark.parametrize("kind", [*OWN_VIDEOS, "Long recordings"])
def test_what_is_shown_of_your_own_videos_runs(kind, own_videos: Path, request):
    if kind == "An object store":
        request.getfixturevalue("bucket")
    shown = commands_under(REPOSITORY / "docs" / "own-folder.md", kind)
    assert shown
    for words in shown:
        quick = ("--workers", "1") if words[1] == "shard" else ()
        run_command(own_videos, " ".join(words[:2]), *words[2:], *quick)
        out = own_videos / words[words.index("--out") + 1]
        if words[1] == "shard":
            assert json.loads((out / "dataset.json").read_text())["samples"] > 1
        else:
            assert len(json.loads(out.read_text())["data"]) > 1


@pytest.fixture(scope="module")
def own_videos(demo_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of everything that docs/own-folder.md names, two or more clips of each."""
    folder = tmp_path_factory.mktemp("own")
    clips = [path.read_bytes() for path in sorted(demo_videos.glob("test/*/*.mp4"))[:4]]
    names = ["train/cat/a.mp4", "train/dog/b.mp4", "test/cat/e.mp4", "test/dog/f.mp4"]
    for name, clip in zip(names, clips, strict=True):
        path = folder / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(clip)
    make_video(folder / "recordings" / "concert.mp4", 4)
    for name in ("parts", "web"):
        (folder / name).mkdir()
    dog, cat = "dogdogdogdo_000030.mp4", "catcatcatca_000040.mp4"
    pack(folder / "parts" / "vgg_00.tar.gz", {f"dog/{dog}": clips[0]})
    pack(folder / "parts" / "vgg_01.tar.gz", {f"cat/{cat}": clips[1]})
    rows = "dogdogdogdo,30,dog barking,train\ncatcatcatca,40,cat meowing,test\n"
    (folder / "vggsound.csv").write_text(rows)
    files = {"0.mp4": clips[0], "0.json": b'{"category": "dog"}', "0.txt": b"A dog"}
    files |= {"1.mp4": clips[1], "1.json": b'{"category": "cat"}', "1.txt": b"A cat"}
    pack(folder / "web" / "00000.tar", files)
    (table,) = (
        block.text for block in BLOCKS if block.page.name == "own-folder.md" and "{" in block.text
    )
    (folder / "clips.jsonl").write_text(table)
    return folder


@pytest.fixture
def bucket(own_videos: Path, server) -> None:  # noqa: F811
    """The same videos in S3, under the name that the docs use."""
    import fsspec

    filesystem = fsspec.filesystem("s3", use_listings_cache=False)
    for path in (own_videos / "videos" / "train").rglob("*.mp4"):
        filesystem.put_file(str(path), f"bucket/videos/{path.parent.name}/{path.name}")


@pytest.fixture
def shown_audioset(demo_clip, tmp_path) -> Path:
    """A clip of AudioSet under the names that the docs use."""
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / "class_labels_indices.csv").write_text(
        'index,mid,display_name\n0,/m/09x0r,"Speech"\n'
    )
    (tmp_path / "metadata" / "balanced_train_segments.csv").write_text(
        '--PJHxphWEs, 30.000, 40.000, "/m/09x0r"\n'
    )
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "--PJHxphWEs_30.000.mp4").symlink_to(demo_clip)
    return tmp_path


def test_every_message_that_troubleshooting_quotes_is_one_of_the_programs():
    quoted = [
        re.sub(r"^(Error: |Failed: |Warning: )?(… )?", "", line)
        for block in BLOCKS
        if block.page.name == "troubleshooting.md" and block.language == "text"
        for line in block.text.splitlines()
    ]
    known = list(messages())
    strange = [line for line in quoted if not any(one.fullmatch(line) for one in known)]
    assert quoted
    assert not strange, "\n".join(strange)


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    command = (sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet")
    result = subprocess.run(
        [*command, "--site-dir", str(tmp_path / "site")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr + result.stdout
    assert (tmp_path / "site" / "index.html").exists()
