"""Every command is a function that returns a result, says how far it is, and prints nothing."""

from __future__ import annotations

import ast
import json
from collections import Counter
from pathlib import Path

import click
import pytest
from PIL import Image

import avprep
from avprep.cli import group
from avprep.cli.flags import Flag
from tests.conftest import REPOSITORY
from tests.test_arguments import leaves
from tests.test_commands import succeed

COMMANDS = dict(leaves(group, "avprep"))


class Listener:
    """Hears of progress, and checks that it makes sense."""

    def __init__(self) -> None:
        self.last: dict[str, avprep.Progress] = {}

    def __call__(self, progress: avprep.Progress) -> None:
        before = self.last.get(progress.unit)
        assert progress.done >= (before.done if before else 0)
        assert progress.total is None or progress.done <= progress.total
        self.last[progress.unit] = progress

    def done(self) -> dict[str, tuple[int, int | None]]:
        return {unit: (last.done, last.total) for unit, last in self.last.items()}


def test_videos_become_checked_shards_and_a_report_without_a_word(demo_videos, tmp_path, capfd):
    videos, extracted, shards = demo_videos / "train", tmp_path / "files", str(tmp_path / "shards")
    pool = avprep.PoolOptions(workers=1)
    heard = Listener()
    found = avprep.extract(videos, extracted, pool=pool, on_progress=heard)
    assert (found.extracted, len(found.failures)) == (16, 2)
    assert heard.done() == {"file": (18, None), "clip": (18, 18)}
    assert heard.last["clip"].failed == 2

    clips, labels = avprep.folder_manifest(videos, extracted)
    manifest = tmp_path / "m.json"
    avprep.write_manifest(manifest, clips)
    avprep.write_folder_labels(videos, tmp_path / "m.classes.csv", heard := Listener())
    assert heard.done() == {"file": (18, None)}
    weights = avprep.weigh_clips(manifest)
    assert (weights.clips, weights.classes) == (18, 8)
    assert weights.path == tmp_path / "m_weight.csv"

    begun: list[object] = []
    built = avprep.build_shards(
        manifest, shards, pool=pool, on_progress=(heard := Listener()), on_begin=begun.append
    )
    assert built.complete
    assert built.label_csv == tmp_path / "m.classes.csv"
    assert heard.done() == {"clip": (18, 18)}
    assert len(begun) == 1
    assert len(labels) == 8
    findings = avprep.verify(shards, pool=pool, on_progress=(heard := Listener()))
    assert findings.damaged == ()
    assert heard.last["shard"].done == heard.last["shard"].total == len(findings.checks)
    made = avprep.report(shards, str(tmp_path / "page.html"), on_progress=Listener())
    assert (tmp_path / "page.html").read_bytes() == made.page
    assert capfd.readouterr() == ("", "")


def test_manifests_are_checked_and_changed_without_a_word(demo_videos, tmp_path, capfd):
    clips, labels = avprep.folder_manifest(demo_videos / "train")
    manifest = tmp_path / "m.json"
    avprep.write_manifest(manifest, clips)
    options = avprep.CheckOptions(counts=tmp_path / "counts.csv")
    findings = avprep.check_manifest(manifest, options, heard := Listener())
    assert findings.class_counts() == Counter(label for clip in clips for label in clip.labels)
    assert findings.labels is None
    assert heard.done() == {"clip": (18, None)}
    assert (tmp_path / "counts.csv").read_text().startswith("index,mid,display_name,clips\n")

    halves = avprep.SplitOptions(parts="a=1,b=1")  # type: ignore[arg-type]
    assert halves.parts == avprep.Shares(a=1.0, b=1.0)
    parts = avprep.split_manifest(manifest, tmp_path / "parts", halves)
    assert sum(part.clips for part in parts) == 18
    merged = avprep.merge_manifests([part.path for part in parts], tmp_path / "all.jsonl")
    assert (merged.clips, merged.repeated, merged.conflicts) == (18, 0, 0)
    count = avprep.convert_manifest(tmp_path / "all.jsonl", tmp_path / "all.csv")
    assert count == 18
    chosen = avprep.sample_manifest(
        manifest, tmp_path / "few.json", avprep.PerClassOptions(per_class=1)
    )
    assert (chosen.clips, chosen.classes, chosen.short) == (8, 8, ())
    assert len(labels) == 8
    assert capfd.readouterr() == ("", "")


def test_class_csvs_are_written_and_checked_without_a_word(tmp_path, capfd):
    labels, notes = avprep.write_vggsound_labels(tmp_path / "labels.csv")
    assert (len(labels), notes) == (309, [])
    assert avprep.check_labels(tmp_path / "labels.csv").classes == 309
    (tmp_path / "class_labels_indices.csv").write_text("index,mid,display_name\n0,/m/a,A\n")
    options = avprep.FetchOptions(digests=["a=1", "a=2"])  # type: ignore[arg-type]
    with pytest.raises(avprep.UserError, match="has two digests"):
        list(avprep.fetch_labels("audioset", tmp_path, options))
    options = avprep.FetchOptions(files=("class_labels_indices.csv",))
    (fetched,) = avprep.fetch_labels("audioset", tmp_path, options)  # is there, so not fetched
    assert fetched.found
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("package", ["avprep", "cavmae"])
def test_only_the_command_line_prints(package):
    for path in (REPOSITORY / package).rglob("*.py"):
        if "cli" in path.relative_to(REPOSITORY).parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                is_printing = called in ("print", "sys.stdout.write", "sys.stderr.write")
                assert not is_printing, f"{path}:{node.lineno} prints"
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                modules = [*(alias.name for alias in node.names), getattr(node, "module", "")]
                assert not {"click", "tqdm"} & {*modules}, f"{path}:{node.lineno}"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_is_a_stated_option(name):
    for parameter in COMMANDS[name].params:
        assert isinstance(parameter, (Flag, click.Argument)), parameter


def test_no_module_hides_a_public_name():
    modules = {path.stem for path in (REPOSITORY / "avprep").iterdir()}
    assert not modules & {*avprep.__all__}


def test_frames_have_the_size_and_quality_that_flags_ask_for(demo_videos, tmp_path):
    sizes = {}
    for quality in ("20", "90"):
        out = tmp_path / quality
        flags = ("--frame-size", "64", "--jpeg-quality", quality, "--json")
        told = succeed("avprep", "extract", demo_videos / "test", "--out", out, *flags)
        assert json.loads(told)["extracted"] == 8
        frames = sorted(out.glob("frames/frame_0/*.jpg"))
        for frame in frames:
            with Image.open(frame) as image:
                assert image.size == (64, 64)
        sizes[quality] = sum(frame.stat().st_size for frame in frames)
    assert sizes["20"] < 0.7 * sizes["90"]
    options = json.loads((tmp_path / "20" / "extract.json").read_text())["options"]
    assert (options["jpeg_quality"], options["decode"]["frame_size"]) == (20, 64)


def test_both_ways_to_cut_shards_at_once_are_refused():
    with pytest.raises(avprep.UserError, match="not both"):
        avprep.ShardSetOptions(samples_per_shard=5, shard_bytes="1GB")  # type: ignore[arg-type]
    size = avprep.ShardSetOptions(shard_bytes=500_000_000).shard_bytes  # type: ignore[arg-type]
    assert size == 500_000_000
    assert Path("x.png") == avprep.CheckOptions(plot="x.png").plot  # type: ignore[arg-type]
    with pytest.raises(avprep.UserError, match=r"ends in \.png"):
        avprep.CheckOptions(plot=Path("x.jpg"))
