"""Checkpoints are written while training continues, and what goes wrong there is not lost."""

from __future__ import annotations

import resource
import threading

import pytest
import torch

from avprep.errors import WorkFailed
from cavmae.frontend import FrontEnd
from cavmae.model import CAVMAE
from cavmae.train import loop
from cavmae.train.background import BackgroundWriter, Snapshot
from cavmae.train.checkpoint import list_checkpoints, load_state
from tests.cavmae.test_train import FRONT_END, pretrainer
from tests.cavmae.tiny_models import SMALL
from tests.cavmae.tiny_shards import write_tiny_shards


@pytest.fixture
def tiny(tmp_path):
    write_tiny_shards(tmp_path / "shards", samples=16)
    return tmp_path / "shards"


class AtCall(FrontEnd):
    """Does something when it is asked for the inputs of the batch of that number."""

    def __init__(self, number, act) -> None:
        super().__init__(FRONT_END)
        self.left, self.act = number, act

    def forward(self, batch, generator=None):
        self.left -= 1
        if not self.left:
            self.act()
        return super().forward(batch, generator)


def test_steps_are_done_while_a_checkpoint_is_written_and_do_not_change_it(
    tiny, tmp_path, monkeypatch
):
    """Nothing of step 2 is written before step 4 begins."""
    is_further, save = threading.Event(), loop.save_checkpoint

    def save_late(folder, step, *rest):
        assert is_further.wait(600) or step != 2
        return save(folder, step, *rest)

    monkeypatch.setattr(loop, "save_checkpoint", save_late)
    many = {"checkpoint_steps": 2, "keep_checkpoints": 9, "ema": 0.5}
    late = pretrainer(tiny, tmp_path / "late", epochs=1, **many)
    late.frontend = AtCall(4, is_further.set)
    late.run()
    is_further.set()
    usual = pretrainer(tiny, tmp_path / "usual", epochs=1, **many)
    usual.run()
    saved = [list_checkpoints(tmp_path / run / "checkpoints") for run in ("late", "usual")]
    for ours, theirs in zip(*saved, strict=True):
        assert ours.name == theirs.name
        ours, theirs = (load_state(saved, CAVMAE(SMALL)) for saved in (ours, theirs))
        for state in (ours, theirs):
            state["position"]["rows"] = len(state["position"]["rows"])
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert usual.position.step == 4


def test_a_checkpoint_that_cannot_be_written_ends_the_run_at_one_of_the_next_steps(tiny, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    trainer = pretrainer(tiny, tmp_path / "run", epochs=50, checkpoint_steps=1)
    trainer.frontend = AtCall(
        3, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    )
    try:
        with pytest.raises(
            WorkFailed, match=r"checkpoints/.*cannot be written to \(File too large"
        ):
            trainer.run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert trainer.position.step <= 4
    (*_, newest) = list_checkpoints(tmp_path / "run" / "checkpoints")
    assert load_state(newest, CAVMAE(SMALL))["position"]["step"] in (1, 2)


def test_a_copy_is_not_changed_by_its_original_and_memory_is_used_again():
    snapshot = Snapshot(torch.device("cpu"))
    tensors = [torch.ones(2, 3), torch.ones(4, dtype=torch.int32)]
    copies = []
    for shape in ((2, 3), (2, 3), (5,)):
        tensors[0] = torch.ones(shape)
        snapshot.begin()
        copies.append([snapshot.copy(tensor) for tensor in tensors])
        snapshot.finish()
        tensors[0].zero_()
        assert copies[-1][0].tolist() == torch.ones(shape).tolist()
    first, second, third = ([copy.data_ptr() for copy in made] for made in copies)
    assert first == second
    assert third[1] == first[1]


def test_the_error_of_a_thread_is_raised_once():
    writer = BackgroundWriter()
    writer.begin(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        writer.finish()
    assert not writer.has_failed
    writer.finish()
