from dataclasses import replace

import pytest
import torch

from saelab.experiments.run.checkpoint import Checkpoint, groups
from saelab.runs import Run, Source, Spec
from saelab.store import CorruptFile

SOURCE = Source(tokens=10_000, batch=100)
A, B, C = (Run(Spec("topk", 64, 8), SOURCE, seed=seed) for seed in range(3))
ELSEWHERE = replace(A, source=replace(SOURCE, hook="layers.0"))


class FakeTraining:
    """What a checkpoint asks of a training."""

    def __init__(self, value):
        self.tensors = {"w": torch.tensor([value])}

    def state(self):
        return self.tensors

    def load(self, tensors):
        self.tensors = tensors


def test_round_trip(tmp_path):
    checkpoint = Checkpoint.of(tmp_path, [A, B])
    checkpoint.save(FakeTraining(3.0), seconds=12.5)
    other = FakeTraining(0.0)
    assert checkpoint.load(other) == 12.5 and other.tensors["w"].item() == 3.0
    checkpoint.remove()
    assert not (tmp_path / "checkpoints").exists()


def test_runs_are_grouped_by_source(tmp_path):
    assert groups([A, ELSEWHERE, B], [A, ELSEWHERE, B], tmp_path) == [(A, B), (ELSEWHERE,)]


def test_a_group_with_a_checkpoint_stays_whole(tmp_path):
    """Killed while results were written: A is done, B is not, and the plan has grown by C."""
    Checkpoint.of(tmp_path, [A, B]).save(FakeTraining(1.0), seconds=1.0)
    assert groups([A, B, C], [B, C], tmp_path) == [(A, B), (C,)]
    assert groups([A, B, C], [C], tmp_path) == [(C,)]  # nothing of it is wanted any more
    assert groups([B, C], [B, C], tmp_path) == [(B, C)]  # A is no longer of the plan: a new group


def test_a_checkpoint_of_other_runs_is_refused(tmp_path):
    Checkpoint.of(tmp_path, [A, B]).save(FakeTraining(1.0), seconds=1.0)
    mine = Checkpoint.of(tmp_path, [A, C])
    Checkpoint.of(tmp_path, [A, B]).path.rename(mine.path)
    with pytest.raises(CorruptFile, match="is a checkpoint of other runs"):
        mine.load(FakeTraining(0.0))
    mine.path.write_bytes(b"\0" * 40)
    with pytest.raises(CorruptFile, match="truncated or no checkpoint"):
        mine.load(FakeTraining(0.0))
