"""Runs whose --out is in an object store: whole, resumed by any machine, bit-equal."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path

import fsspec
import pytest
import torch
from safetensors.torch import load

import cavmae
from avprep import storage
from avprep.errors import UserError, WorkFailed
from cavmae import FinetuneRun, PretrainRun
from cavmae.checkpoints import save_model
from cavmae.model import CAVMAE
from cavmae.train.records import TIMINGS
from tests import forks
from tests.cavmae.tiny_models import SMALL
from tests.cavmae.tiny_shards import write_tiny_shards
from tests.faults.conftest import wait_until
from tests.faults.test_stores import BUCKET, moto, server  # noqa: F401

LAST = "checkpoints/step-00000004"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with `shards` and `init.safetensors`."""
    folder = tmp_path_factory.mktemp("place")
    write_tiny_shards(folder / "shards", samples=8)
    torch.manual_seed(0)
    save_model(folder / "init.safetensors", CAVMAE(SMALL))
    return folder


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch) -> Path:
    """The temporary folder of a machine."""
    folder = tmp_path / "machine"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.fixture
def store():
    """A store in memory, as a prefix of URLs."""
    fsspec.filesystem("memory").store.clear()
    return "memory://bucket"


def small(place: Path, **changes) -> dict:
    return {
        "shards": place / "shards",
        "init": place / "init.safetensors",
        "workers": 0,
        "device": "cpu",
        "batch_size": 4,
        "epochs": 2,
        **changes,
    }


def names(out: str) -> list[str]:
    """The files in a run directory, but for those of trackers."""
    filesystem, root = fsspec.core.url_to_fs(out, use_listings_cache=False)
    found = (
        path[path.index(root.strip("/")) + len(root.strip("/")) + 1 :]
        for path in filesystem.find(root)
    )
    return sorted(name for name in found if not name.startswith("tensorboard/"))


def rows(out: str) -> list[dict[str, str]]:
    """The log without what says how fast the run was."""
    lines = storage.read_bytes(storage.join(out, "log.csv")).decode().splitlines()
    return [{n: v for n, v in row.items() if n not in TIMINGS} for row in csv.DictReader(lines)]


def assert_same_run(out: str, expected: str) -> None:
    assert names(out) == names(expected)
    for name in names(expected):
        if name.endswith(".safetensors"):
            ours, theirs = (
                load(storage.read_bytes(storage.join(run, name))) for run in (out, expected)
            )
            assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert rows(out) == rows(expected)


def test_a_run_in_a_store_is_the_one_in_a_folder(place, store, tmp_path, machine):
    local = str(tmp_path / "run")
    for out in (local, f"{store}/run"):
        result = cavmae.finetune(FinetuneRun(out=out, val_shards=place / "shards", **small(place)))
        assert result.folder == out
    assert_same_run(f"{store}/run", local)
    assert not list(machine.glob(".tmp-*"))
    assert len(fsspec.filesystem("memory").find("/bucket/run/tensorboard")) == 1
    assert json.loads(storage.read_bytes(f"{store}/run/result.json"))["epochs"] == 2


def test_an_empty_machine_resumes_from_the_newest_whole_checkpoint(place, store, tmp_path):
    """The newest one was cut off by the death of the machine that wrote it."""
    local, out = str(tmp_path / "run"), f"{store}/run"
    cavmae.pretrain(PretrainRun(out=local, **small(place, epochs=3)))
    cavmae.pretrain(PretrainRun(out=out, **small(place)))
    storage.delete(f"{out}/{LAST}/state.pt")
    events: list[cavmae.Event] = []
    cavmae.pretrain(PretrainRun(out=out, **small(place, epochs=3)), events.append)
    notes = [event.text for event in events if isinstance(event, cavmae.Note)]
    assert "resuming from step-00000002: epoch 1, step 2" in notes
    assert_same_run(out, local)


def test_another_run_in_the_store_is_refused_by_its_url(place, store):
    out = f"{store}/run"
    cavmae.pretrain(PretrainRun(out=out, **small(place, epochs=1)))
    before = names(out)
    with pytest.raises(UserError, match=rf"^{out}: its run was started with mask_ratio = 0\.75"):
        cavmae.pretrain(PretrainRun(out=out, mask_ratio=0.5, **small(place)))
    with pytest.raises(UserError, match=rf"^{out}: holds a run already"):
        cavmae.pretrain(PretrainRun(out=out, resume="never", **small(place)))
    storage.delete(f"{out}/config.json")
    with pytest.raises(UserError, match=rf"^{out}/config\.json: missing beside checkpoints"):
        cavmae.pretrain(PretrainRun(out=out, **small(place)))
    assert names(out) == [name for name in before if name != "config.json"]


def test_a_place_that_may_show_half_a_file_is_refused(place):
    with pytest.raises(UserError, match=r"^https://host/run: cannot be written to: only local"):
        cavmae.pretrain(PretrainRun(out="https://host/run", **small(place)))


def test_what_is_not_finite_is_named_by_its_url(place, store):
    out = f"{store}/run"
    with pytest.raises(WorkFailed, match=rf"all of them in {out}/not-finite\.json"):
        cavmae.pretrain(PretrainRun(out=out, lr=1e30, **small(place)))
    assert json.loads(storage.read_bytes(f"{out}/not-finite.json"))["video_ids"]


def test_a_stored_run_is_a_checkpoint_wherever_a_local_one_is(place, store, tmp_path):
    """Its best weights; any file of it; and what has replaced them since."""
    local, out = str(tmp_path / "run"), f"{store}/run"
    for run in (local, out):
        cavmae.finetune(FinetuneRun(out=run, val_shards=place / "shards", **small(place)))
    for run, file in ((out, f"{local}/best.safetensors"), (f"{out}/{LAST}", f"{local}/{LAST}")):
        ours, theirs = (cavmae.load_checkpoint(saved).state_dict() for saved in (run, file))
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    results = [
        cavmae.finetune(
            FinetuneRun(
                out=tmp_path / name,
                val_shards=place / "shards",
                **small(place, init=init, epochs=1),
            )
        )
        for name, init in (("a", local), ("b", out))
    ]
    assert results[0].train["loss"] == results[1].train["loss"]
    before = cavmae.load_checkpoint(out).state_dict()
    storage.upload(f"{out}/best.safetensors", place / "init.safetensors")
    assert cavmae.load_checkpoint(out).state_dict().keys() != before.keys()
    with pytest.raises(UserError, match=rf"^{store}/none: no such checkpoint, nor a run"):
        cavmae.load_checkpoint(f"{store}/none")


def test_folds_in_a_store(place, store):
    result = cavmae.folds(cavmae.FoldsRun(out=f"{store}/folds", **small(place, epochs=1)))
    assert result.folder == f"{store}/folds"
    facts = json.loads(storage.read_bytes(f"{store}/folds/folds.json"))
    assert list(facts["folds"]) == ["test", "train"]
    assert storage.exists(f"{store}/folds/fold-train/best.safetensors")


def words(place: Path, out: str, **changes) -> list[str]:
    """Of `cavmae finetune`, saving after each of six steps."""
    options = small(place, out=out, val_shards=place / "shards", epochs=3, checkpoint_steps=1)
    named = {name.replace("_", "-"): value for name, value in {**options, **changes}.items()}
    return ["finetune", *(f"--{name}={value}" for name, value in named.items())]


def whole_steps(out: str) -> list[int]:
    """The steps of the whole checkpoints in a store."""
    found = (name for name in names(out) if name.endswith("/state.pt"))
    return [int(name.split("/")[1].removeprefix("step-")) for name in found]


@pytest.mark.usefixtures("server")
def test_machines_that_die_one_after_another_end_bit_equal(place, tmp_path):
    out, local = f"{BUCKET}/run", str(tmp_path / "run")
    for step in (1, 2, 4):
        process = forks.start(*words(place, out))
        wait_until(lambda: max(whole_steps(out), default=0) >= step or not process.is_alive())  # noqa: B023
        process.kill()
        process.join()
        assert whole_steps(out)
    for run in (local, out):
        process = forks.start(*words(place, run))
        process.join()
        assert process.exitcode == 0
    assert_same_run(out, local)


@pytest.mark.usefixtures("server")
def test_a_run_told_to_stop_has_stored_what_it_did(place, tmp_path):
    out, said = f"{BUCKET}/stopped", tmp_path / "errors"
    process = forks.start(*words(place, out, epochs=500), errors=said)
    wait_until(lambda: whole_steps(out) or not process.is_alive())
    process.terminate()
    process.join()
    assert (process.exitcode, "Traceback" in said.read_text()) == (130, False)
    assert max(whole_steps(out)) == max(int(row["step"]) for row in rows(out))


def test_a_store_that_is_down_for_a_moment_costs_nothing(request, place, tmp_path):
    first, out, said = request.getfixturevalue("server"), f"{BUCKET}/outage", tmp_path / "errors"
    process = forks.start(*words(place, out, epochs=6), errors=said)
    wait_until(lambda: whole_steps(out) or not process.is_alive())
    host, port = first.get_host_and_port()
    first.stop()
    time.sleep(3)
    again = moto.ThreadedMotoServer(ip_address=host, port=port, verbose=False)
    again.start()
    process.join()
    assert process.exitcode == 0, said.read_text()
    assert json.loads(storage.read_bytes(f"{out}/result.json"))["epochs"] == 6
    again.stop()


def test_a_store_that_stays_down_ends_the_run_with_its_name(place, tmp_path):
    nobody = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}
    said = tmp_path / "errors"
    process = forks.start(
        *words(place, f"{BUCKET}/down", retries=1), errors=said, environment=nobody
    )
    process.join()
    assert process.exitcode == 1
    (line,) = (line for line in said.read_text().splitlines() if "cannot be reached" in line)
    assert f"{BUCKET}/down" in line
    assert "Traceback" not in said.read_text()
