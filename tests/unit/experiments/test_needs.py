"""What variants need of a stream is kept beside its cached activations."""

import pytest
import torch

from saelab.experiments.run.caching import kept
from saelab.runs import Optim, Run, Source, Spec
from saelab.store import CorruptFile, read_tensors
from saelab.terms.base import Need
from saelab.terms.causal import fisher_need
from saelab.testing.variants import BATCH, SparseSource
from saelab.train import Training


def weights(folder):
    run = Run(
        Spec("causal", 64, 4.0, {"rows": 500.0}),
        Source(tokens=10 * BATCH, batch=BATCH),
        Optim(lr=3e-3, warmup=5),
    )
    training = Training([run], SparseSource(), meet=Need.of if folder is None else kept(folder))
    list(training)
    return training.state()["0.sae.W_dec"]


def test_a_kept_metric_trains_the_same_sae_and_is_computed_once(tmp_path, monkeypatch):
    live, written = weights(None), weights(tmp_path)
    (path,) = (tmp_path / "needs").iterdir()
    assert read_tensors(path).keys() == {"factors", "centroids", "spread", "own"}

    def never(self, source):
        raise AssertionError("computed again")

    monkeypatch.setattr(Need, "of", never)
    assert torch.equal(live, written) and torch.equal(live, weights(tmp_path))


def test_needs_of_other_numbers_are_other_files(tmp_path):
    source = SparseSource()
    for need in (fisher_need(rows=300), fisher_need(rows=400), fisher_need(rows=300)):
        kept(tmp_path)(need, source)
    assert len(list((tmp_path / "needs").iterdir())) == 2


def test_a_damaged_file_is_named(tmp_path):
    need = fisher_need(rows=300)
    kept(tmp_path)(need, SparseSource())
    (path,) = (tmp_path / "needs").iterdir()
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(CorruptFile, match=path.name):
        kept(tmp_path)(need, SparseSource())
