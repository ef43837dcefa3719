"""What the temporal evaluation of language models is made of: regressions from sums, choices of
latents, probes of labels, kinds of latents.
"""

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers import byte_tokenizer
from saelab.evals.concepts import scores as concept_scores
from saelab.evals.temporal.prediction.ridge import Moments, Ridge, greedily, moments, ridge, weights
from saelab.evals.temporal.probing import Labels, labels_of, probes
from saelab.evals.temporal.specialisation import redundancy, specialisations
from saelab.evals.temporal.text import TEST, Codes, Text
from saelab.text.labels.labelled import (
    Concept,
    Family,
    LabelledCorpus,
    LabelledText,
    label_tokens,
    labelled_windows,
)
from saelab.text.labels.python import VALUES, python_labels
from toy_lm import ToyLM

W, T, DOCS = 200, 9, 20


def text(y: Tensor | None = None) -> Text:
    """Windows of which the first half of the documents is fitted on, in two folds."""
    grid = (W, T)
    y = torch.zeros(*grid, 3) if y is None else y
    doc = (torch.arange(W) * DOCS // W).unsqueeze(1).expand(grid)
    fold = torch.where(doc < 5, 0, torch.where(doc < 10, 1, TEST))
    keep = torch.ones(grid, dtype=torch.bool)
    tokens = torch.zeros(grid, dtype=torch.long)
    return Text(ToyLM(), y, y, tokens, doc, keep, fold, torch.arange(W * T), {})


def codes(z: Tensor) -> Codes:
    from scipy.sparse import csr_array

    return Codes(text(), csr_array(z.flatten(0, 1).double().numpy()))


def folds_of(x: Tensor, y: Tensor) -> tuple[Moments, Moments]:
    """Inputs `[W, T, C]`, and y of the token after them."""
    later = torch.cat([torch.zeros_like(y[:, :1]), y[:, :-1]], 1)
    return moments(text(later), lambda windows: x[windows], (1,))[1]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_regression_is_that_of_the_pairs_themselves():
    x = noise(W, T, 4) * torch.tensor([1.0, 10.0, 0.1, 0.0]) + 3
    true = torch.tensor([[1.0, 0, 0], [0, 0.2, 0], [0, 0, 5.0], [0, 0, 0]])
    y = x @ true + 0.02 * noise(W, T, 3, seed=1)
    folds = folds_of(x, y)
    assert sum(fold.n for fold in folds) == W // 2 * (T - 1)
    fitted = ridge(folds, torch.arange(4))
    assert isinstance(fitted, Ridge)
    # hardly any noise, hardly any penalty
    torch.testing.assert_close(fitted.weight, true, atol=0.03, rtol=0)
    pairs = x[: W // 2, :-1].flatten(0, 1)
    torch.testing.assert_close(fitted.mean, pairs.mean(0), atol=1e-3, rtol=0)
    torch.testing.assert_close(fitted(pairs).mean(0), (pairs @ true).mean(0), atol=0.01, rtol=0)


def test_noise_alone_gets_the_largest_penalty():
    weight = ridge(folds_of(noise(W, T, 4), noise(W, T, 3, seed=1)), torch.arange(4)).weight
    least_squares = 800**-0.5  # deviation of each weight
    assert weight.abs().mean() < least_squares / 3


def test_greedy_choice_passes_over_what_is_said_already():
    first, second = noise(W, T, 1), noise(W, T, 1, seed=1)
    x = torch.cat([second, first, first + 0.05 * noise(W, T, 1, seed=2), noise(W, T, 1, seed=3)], 2)
    y = torch.cat([2 * first, second, 0 * first], 2)
    folds = folds_of(x, y)
    assert greedily(folds, np.arange(4), 2).tolist() in ([1, 0], [2, 0])
    assert greedily(folds, np.array([3, 0]), 5).tolist() == [0, 3]
    scaled = folds_of(x * torch.tensor([0.01, 1, 1, 100]), y)
    assert greedily(scaled, np.arange(4), 3).tolist() == greedily(folds, np.arange(4), 3).tolist()
    size = weights(scaled)
    assert size.argmin() == 3 and size == pytest.approx(weights(folds), rel=1e-3)


def label_rows() -> Labels:
    """A slow label, on half of every document, and a fast one, on every other token."""
    row = torch.arange(W).unsqueeze(1).expand(W, T)
    y = torch.stack([row % 10 < 5, torch.arange(W * T).view(W, T) % 2 == 0], 2).flatten(0, 1)
    doc = (torch.arange(W) * DOCS // W).repeat_interleave(T).numpy()
    concepts = (Concept("in_docstring", ("yes",)), Concept("token_type", ("name",)))
    train = doc < 10
    files = concept_scores.TestFiles(train, doc[~train] - 10)
    return Labels(np.arange(W * T), y.numpy(), concepts, np.array([True, False]), files)


def test_probes_tell_what_latents_say_and_a_block_only_what_it_holds():
    labels = label_rows()
    z = torch.from_numpy(labels.y).float().view(W, T, 2) * (1 + noise(W, T, 2).abs())
    scores, table = probes(codes(z), labels, np.array([0]))
    for probe in ("latent", "k4", "k16"):
        assert scores[f"slow_{probe}"].value == scores[f"slow_{probe}_block"].value == 1
        assert scores[f"fast_{probe}"].value == 1
        assert scores[f"fast_{probe}_block"].value == pytest.approx(0.5, abs=0.05)
    assert scores["slow_latent"].n == 10 and scores["slow_latent"].low == 1
    assert [row[:2] for row in table.rows] == [
        ("in_docstring=yes", "slow"),
        ("token_type=name", "fast"),
    ]


def test_smoothing_brings_out_a_slow_label_from_rare_firings():
    labels = label_rows()
    shows = torch.rand(W, T, generator=torch.Generator().manual_seed(0)) < 0.5
    z = (torch.from_numpy(labels.y[:, 0]).view(W, T) & shows).float().unsqueeze(2)
    scores, _ = probes(codes(z), labels, np.array([0]))
    assert scores["slow_latent"].value == pytest.approx(0.75, abs=0.03)
    smoothed = scores["slow_latent_smoothed"].value
    assert smoothed is not None and smoothed > 0.87


SOURCE = '''"""What this file is for, at some length."""
def first(a, b):
    """Adds two numbers and says so in a sentence."""
    return (a + [b][0]) * 2  # a comment that goes on
class Second:
    def method(self):
        if self:
            for i in range(3):
                print(i)
'''


def test_labels_are_the_slow_and_fast_ones_of_python():
    families = tuple(Family(name, values) for name, values in VALUES.items())
    sources = [SOURCE.replace("numbers", "numbers" * (i + 1)) for i in range(12)]
    texts = tuple(
        LabelledText(f"{i}.py", source, python_labels(source)) for i, source in enumerate(sources)
    )
    tokenizer = byte_tokenizer()
    tokens = label_tokens(LabelledCorpus(families, texts), tokenizer)
    windows = labelled_windows(tokens, tokenizer, context=65)
    labels = labels_of(tokens, windows, windows.keep)
    kinds = {c.name: bool(slow) for c, slow in zip(labels.concepts, labels.slow, strict=True)}
    for name in ("in_docstring=yes", "in_comment=yes", "scope=method", "indentation=3|4|5|6+"):
        assert kinds[name]
    for name in ("token_type=name", "token_type=keyword", "role=builtin_call"):
        assert not kinds[name]
    assert not any(name.startswith(("token_type=docstring", "role=none")) for name in kinds)
    shown = tokens.tokens[: len(SOURCE)]
    assert len(labels.places) == int(windows.keep.sum()) and len(shown) == len(SOURCE)


def test_latents_that_say_the_same_are_one_group():
    one, other, third = (noise(W, T, 1, seed=i).relu() for i in range(3))
    z = torch.cat([one, 3 * one, one + 0.1 * other, other, third, 0 * one], 2)
    scores, group = redundancy(codes(z))
    assert scores["redundant_share"].value == pytest.approx(3 / 5)  # the sixth never fires
    assert scores["redundant_groups"].value == 1
    assert group[0] == group[1] == group[2] and len(set(group.tolist())) == 3


def test_kinds_are_called_after_what_sets_them_apart():
    n = 10
    plain = np.tile([1.1, 0.0, 0.0, 0.01], (5 * n, 1))
    for i, (column, value) in enumerate(((0, 30.0), (1, 0.9), (2, 0.9), (3, 0.5))):
        plain[(i + 1) * n : (i + 2) * n, column] = value
    names = ("run length", "autocorrelation", "position", "density")
    table, map_ = specialisations(dict(zip(names, plain.T, strict=True)), np.arange(5 * n))
    kinds = {row[0]: row[1] for row in table.rows}
    assert {"long runs", "persistent", "positional", "frequent"} < set(kinds)
    assert kinds["persistent"] == n and sum(kinds.values()) == 5 * n
    (points,) = map_.points
    assert {map_.groups[g] for g in points.group[n * 2 : n * 3]} == {"persistent"}
