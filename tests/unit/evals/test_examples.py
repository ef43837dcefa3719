import json
import math
from collections import Counter
from dataclasses import asdict

import pytest
import torch

from saelab.evals.core import examples
from saelab.evals.core.data import codes as coded
from saelab.evals.core.data import prepare
from saelab.evals.core.examples import latent_examples
from saelab.evals.core.latents import Firings
from saelab.evals.core.measure import _reconstruct
from toy_lm import D, ToyDictionary, ToyLM, V, held, random_dictionary, windows, zero

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


def pages_of(dictionary, data):
    firings = Firings(len(dictionary.directions), data.n_docs)
    with torch.no_grad():
        _reconstruct(dictionary, data, firings)
    return latent_examples(dictionary, data, firings)


def test_pages_say_what_the_dictionary_does(data, monkeypatch):
    monkeypatch.setattr(examples, "LATENTS_SHOWN", 6)
    monkeypatch.setattr(examples, "CONTEXTS_SHOWN", 3)
    dictionary = sparse_dictionary()
    pages = pages_of(dictionary, data)
    assert 3 <= len(pages) <= 6
    assert len({page.index for page in pages}) == len(pages)
    assert [page.chosen_for for page in pages[:4]] == [
        "effect", "breadth", "selectivity", "effect",
    ]  # fmt: skip
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
    page = pages_of(sparse_dictionary(), data)[0]
    tokens = torch.cat([w.tokens for w, _ in data.batches])
    doc = torch.cat([w.doc for w, _ in data.batches])
    for context in page.contexts:
        assert context.tokens == [f"<{t}>" for t in tokens[context.window].tolist()]
        assert context.doc == int(doc[context.window, context.peak])
        assert context.activations[0] == 0  # BOS is masked


def test_logit_effect_is_the_centred_projection(data):
    page = pages_of(sparse_dictionary(), data)[0]
    direction = sparse_dictionary().directions[page.index]
    effect = direction / direction.norm() @ LM.out
    effect -= effect.mean()
    assert page.promoted[0][0] == f"<{int(effect.argmax())}>"
    assert page.promoted[0][1] == pytest.approx(float(effect.max()), rel=1e-3)
    assert page.suppressed[0] == (
        f"<{int(effect.argmin())}>",
        pytest.approx(float(effect.min()), rel=1e-3),
    )


def test_tokens_of_a_latent_are_counted_as_by_hand(data):
    """Perplexity of a latent's activation over tokens, and the share of their occurrences on which
    it is silent, by loops over positions.
    """
    dictionary, latents = random_dictionary(), torch.tensor([0, 3, 7, 11])
    numbers, shares = examples._contexts_of(dictionary, data, latents)
    assert max(numbers) > 2 and 0.05 < max(shares) < 1
    tokens = torch.cat([w.tokens[w.keep] for w, _ in data.batches]).tolist()
    z = dictionary.encode(torch.cat([w.flat for w, _ in data.batches]))
    for place, latent in enumerate(latents.tolist()):
        mass, fired = Counter(), Counter()
        for token, value in zip(tokens, z[:, latent].tolist(), strict=True):
            mass[token] += value
            fired[token] += value > 0
        share = {token: value / mass.total() for token, value in mass.items() if value}
        number = math.exp(-sum(p * math.log(p) for p in share.values()))
        silent = sum(p * (1 - fired[token] / tokens.count(token)) for token, p in share.items())
        assert float(numbers[place]) == pytest.approx(number)
        assert float(shares[place]) == pytest.approx(silent)


def test_a_detector_of_one_token_is_neither_broad_nor_selective(data):
    """Beside it a latent that fires on half of the tokens, whatever they are."""
    tokens = torch.cat([w.tokens[w.keep] for w, _ in data.batches])
    one = (tokens == tokens.mode().values).double()
    codes = torch.stack([one, torch.arange(len(tokens)) % 2], 1).float()

    class Given(ToyDictionary):
        def encode(self, x):
            return next(parts)

    sizes = [len(x) for w, _ in data.batches for x, _ in coded(zero(), w)]
    parts = iter(codes.split(sizes))
    dictionary = Given(torch.zeros(D, 2), torch.ones(2, D) / D**0.5)
    numbers, silent = examples._contexts_of(dictionary, data, torch.tensor([0, 1]))
    assert float(numbers[0]) == pytest.approx(1) and float(silent[0]) == pytest.approx(0)
    assert numbers[1] > 2 and 0.3 < silent[1] < 0.7


def test_pages_are_json_and_deterministic(data):
    first, second = (pages_of(sparse_dictionary(), data) for _ in range(2))
    assert first == second
    assert len(json.dumps([asdict(page) for page in first], allow_nan=False)) > 1000


def test_dead_and_dense_latents_have_no_page(data):
    assert pages_of(zero(), data) == []
    dense = ToyDictionary(torch.zeros(D, 3), torch.ones(3, D), threshold=-1)  # fires everywhere
    assert pages_of(dense, data) == []
