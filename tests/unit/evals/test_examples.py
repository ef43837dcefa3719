import json
from dataclasses import asdict

import pytest
import torch

from saelab.evals.core import examples
from saelab.evals.core.data import prepare
from saelab.evals.core.examples import latent_examples
from toy_lm import D, ToyDictionary, ToyLM, V, held, windows, zero

LM = ToyLM()


@pytest.fixture(scope="module")
def data():
    return prepare(held(LM, windows(LM, n=24)))


def sparse_dictionary() -> ToyDictionary:
    """Latents in the directions of the token table, with a threshold high enough to be sparse, and
    unequal norms.
    """
    rows = LM.table / LM.table.norm(dim=1, keepdim=True)
    return ToyDictionary(rows.T, rows * torch.linspace(0.5, 2, V).unsqueeze(1), threshold=2.2)


def test_pages_say_what_the_dictionary_does(data, monkeypatch):
    monkeypatch.setattr(examples, "LATENTS_SHOWN", 6)
    monkeypatch.setattr(examples, "CONTEXTS_SHOWN", 3)
    dictionary = sparse_dictionary()
    pages = latent_examples(dictionary, data)
    assert 3 <= len(pages) <= 6
    assert len({page.index for page in pages}) == len(pages)
    assert [page.chosen_for for page in pages[:4]] == ["effect", "specificity"] * 2
    x = torch.cat([w.flat for w, _ in data.batches])
    for page in pages:
        norm = float(dictionary.directions[page.index].norm())
        z = dictionary.encode(x)[:, page.index] * norm
        assert 1e-4 <= page.density <= 0.2
        assert page.density == pytest.approx(float((z > 0).float().mean()))
        assert page.max_activation == pytest.approx(float(z.max()), rel=1e-3)
        assert page.mean_activation == pytest.approx(float(z[z > 0].mean()), rel=1e-3)
        assert sum(page.histogram) == int((z > 0).sum())
        assert len(page.edges) == len(page.histogram) + 1
        assert page.contexts[0].activations[page.contexts[0].peak] == page.max_activation
        peaks = [c.activations[c.peak] for c in page.contexts]
        assert peaks == sorted(peaks, reverse=True)
        assert len({c.window for c in page.contexts}) == len(page.contexts) <= 3


def test_contexts_are_the_text_of_the_window(data):
    page = latent_examples(sparse_dictionary(), data)[0]
    tokens = torch.cat([w.tokens for w, _ in data.batches])
    doc = torch.cat([w.doc for w, _ in data.batches])
    for context in page.contexts:
        assert context.tokens == [f"<{t}>" for t in tokens[context.window].tolist()]
        assert context.doc == int(doc[context.window, context.peak])
        assert context.activations[0] == 0  # BOS is masked


def test_logit_effect_is_the_centred_projection(data):
    page = latent_examples(sparse_dictionary(), data)[0]
    direction = sparse_dictionary().directions[page.index]
    effect = direction / direction.norm() @ LM.out
    effect -= effect.mean()
    assert page.promoted[0][0] == f"<{int(effect.argmax())}>"
    assert page.promoted[0][1] == pytest.approx(float(effect.max()), rel=1e-3)
    assert page.suppressed[0] == (
        f"<{int(effect.argmin())}>",
        pytest.approx(float(effect.min()), rel=1e-3),
    )


def test_pages_are_json_and_deterministic(data):
    first, second = (latent_examples(sparse_dictionary(), data) for _ in range(2))
    assert first == second
    assert len(json.dumps([asdict(page) for page in first], allow_nan=False)) > 1000


def test_dead_and_dense_latents_have_no_page(data):
    assert latent_examples(zero(), data) == []
    dense = ToyDictionary(torch.zeros(D, 3), torch.ones(3, D), threshold=-1)  # fires everywhere
    assert latent_examples(dense, data) == []
