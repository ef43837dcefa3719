"""The concept evaluation against scikit-learn, and on tokens whose concepts are known latents."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.sparse import csc_array

from helpers import byte_tokenizer
from saelab.evals import EVALS, check_evals, metric_of
from saelab.evals.common.auroc import auroc_of_latents
from saelab.evals.concepts.latents import f1_of_firing, mean_differences
from saelab.evals.concepts.measure import measure, prepare_labelled
from saelab.evals.concepts.scores import TestFiles as Files  # pytest must not collect it
from saelab.evals.concepts.scores import (
    best_cut,
    metrics,
    probe_logits,
    resamples,
    token_rule,
    whitened,
)
from saelab.ground.held_out import HeldOut
from saelab.runs import Source
from saelab.text.labels.labelled import (
    Family,
    LabelledCorpus,
    LabelledText,
    label_tokens,
    labelled_windows,
)
from saelab.types import Hook, Windows
from toy_lm import ToyDictionary

RNG = np.random.default_rng(0)


def test_auroc_of_every_latent_is_scikit_learns():
    from sklearn.metrics import roc_auc_score

    # ties among the codes, and zeros
    dense = np.round(RNG.random((300, 7)) * 4) * (RNG.random((300, 7)) < 0.4)
    dense[:, 3] = 0  # a dead latent
    y = RNG.random((300, 3)) < (0.1, 0.5, 0.8)
    found = auroc_of_latents(csc_array(dense), y)
    expected = [[roc_auc_score(y[:, c], dense[:, j]) for c in range(3)] for j in range(7)]
    assert np.allclose(found, expected) and np.allclose(found[3], 0.5)
    assert np.isnan(auroc_of_latents(csc_array(dense), np.ones((300, 1), bool))).all()
    assert np.allclose(
        auroc_of_latents(csc_array(np.zeros((4, 2))), np.array([[1], [0], [0], [1]], bool)), 0.5
    )


def test_firing_and_differences():
    dense = np.array([[1.0, 0], [0, 2], [3, 0], [0, 0]])
    y = np.array([[True], [False], [True], [True]])
    codes = csc_array(dense)
    assert np.allclose(f1_of_firing(codes, y), [[2 * 2 / 5], [0]])
    assert np.allclose(mean_differences(codes, y), [[4 / 3], [-2]])


def test_the_best_cut():
    score, y = np.array([3.0, 2, 2, 1]), np.array([True, True, False, False])
    f1, cut = best_cut(score, y, "f1")
    assert f1 == pytest.approx(0.8) and ((score > cut) == [True, True, True, False]).all()
    accuracy, cut = best_cut(score, y, "accuracy")
    assert accuracy == pytest.approx(0.75)
    assert best_cut(np.zeros(4), y, "f1") == (pytest.approx(2 / 3), -np.inf)


def test_metrics_are_those_of_the_test_tokens():
    from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score

    y = RNG.random(600) < 0.3
    score = np.round(y + RNG.normal(size=600), 1)
    files = Files(np.arange(600) < 300, RNG.integers(0, 5, 300))
    found = metrics(files.counts(score, y), np.stack([np.ones(5), [2, 0, 1, 1, 1]]))
    train, test = slice(0, 300), slice(300, 600)
    assert found["auroc"][0] == pytest.approx(roc_auc_score(y[test], score[test]))
    for name, fn in (("f1", f1_score), ("accuracy", balanced_accuracy_score)):
        cut = best_cut(score[train], y[train], name)[1]
        assert found[name][0] == pytest.approx(fn(y[test], score[test] > cut))
    # file 0 twice, file 1 never
    rows = np.concatenate([np.flatnonzero(files.file == f) for f in (0, 0, 2, 3, 4)])
    assert found["auroc"][1] == pytest.approx(roc_auc_score(y[test][rows], score[test][rows]))


def test_resamples_draw_files():
    weight = resamples(6)
    assert (weight[0] == 1).all() and (weight.sum(1) == 6).all()
    assert weight[1:].std() == pytest.approx((5 / 6) ** 0.5, rel=0.05)


def test_token_rule_is_a_rate_with_one_count_of_the_base_rate():
    y = np.array([[1], [1], [0], [1]], bool)
    assert np.allclose(
        token_rule(np.array([4, 4, 4, 7]), y, np.array([4, 7, 9])), [[2.75 / 4], [1.75 / 2], [0.75]]
    )


def test_probes_are_balanced_logistic_regressions():
    from sklearn.linear_model import LogisticRegression

    x = torch.from_numpy(RNG.normal(size=(400, 5))).float() @ torch.randn(
        5, 5, generator=torch.Generator().manual_seed(0)
    )
    y = torch.stack(
        [
            x[:, 0] + torch.randn(400, generator=torch.Generator().manual_seed(i)) > i
            for i in range(2)
        ],
        1,
    )
    train = torch.arange(400) < 300
    white = whitened(x, train)
    assert torch.allclose(white[train].T @ white[train] / 300, torch.eye(5), atol=1e-3)
    shared = probe_logits(white, train, y)
    own = probe_logits(torch.stack([white, white]), train, y)
    assert torch.allclose(shared, own, atol=1e-3)
    for c in range(2):
        model = LogisticRegression(
            C=1 / (2 * 0.03 * 300), class_weight="balanced", max_iter=1000, tol=1e-8
        )
        model.fit(white[train].numpy(), y[train, c].numpy())
        assert np.allclose(shared[:, c].numpy(), model.decision_function(white.numpy()), atol=5e-3)


HOOK = Hook(0)


@pytest.fixture(scope="module")
def data():
    """24 files of bytes; `case`: the byte is upper case, `half`: it is in the second half of its
    file, `coin`: by chance.

    x holds case, half, noise; the byte tells the case, nothing but x tells the half.
    """
    generator = np.random.default_rng(1)
    families = tuple(Family(name, ("no", "yes")) for name in ("case", "half", "coin"))
    texts = []
    for i in range(24):
        letters = generator.choice(list("abcdABCD"), 80)
        columns = np.stack(
            [np.char.isupper(letters), np.arange(80) >= 40, generator.random(80) < 0.5], 1
        )
        texts.append(LabelledText(f"file {i}", "".join(letters), columns.astype(np.int16)))
    tokenizer = byte_tokenizer()
    labels = label_tokens(LabelledCorpus(families, tuple(texts)), tokenizer)
    windows = labelled_windows(labels, tokenizer, context=41)
    x = torch.zeros(*windows.tokens.shape, 4)
    for w in range(len(windows)):
        x[w, 1:, :2] = torch.from_numpy(texts[w // 2].labels[:, :2]).float()[w % 2 * 40 :][:40]
    x += 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    batches = [
        (
            Windows(
                *(t[part] for t in (x, windows.tokens, windows.doc, windows.pos, windows.keep))
            ),
            None,
        )
        for part in (slice(0, 30), slice(30, 48))
    ]

    class Model:
        hook = HOOK

    return prepare_labelled(HeldOut(Source(), Model(), batches, windows), labels)


def test_a_latent_per_concept_is_found(data):
    assert [c.name for c in data.concepts] == ["case=yes", "half=yes", "coin=yes"]
    result = measure(ToyDictionary(torch.eye(4), torch.eye(4), threshold=0.5), data)
    case, half, coin = result.details["concepts"]
    assert (case["latent"], half["latent"]) == (case["latent_f1"], half["latent_f1"]) == (0, 1)
    for method in ("best_latent", "k1", "k5", "probe"):
        assert (
            case[method]["auroc"] > 0.99
            and half[method]["f1"] > 0.99
            and half[method]["accuracy"] > 0.99
        )
        assert 0.4 < coin[method]["auroc"] < 0.6
    assert case["token"]["auroc"] == 1 and 0.4 < half["token"]["auroc"] < 0.6
    for method in ("best_latent_shuffled", "probe_shuffled"):
        assert all(0.4 < row[method]["auroc"] < 0.6 for row in result.details["concepts"])
    mean = np.mean([row["best_latent"]["auroc"] for row in result.details["concepts"]])
    score = result.scores["concepts_auroc_best_latent"]
    assert (
        score.value == pytest.approx(mean)
        and score.low < score.value < score.high
        and score.n == 12
    )
    lead = np.mean(
        [row["best_latent"]["auroc"] - row["token"]["auroc"] for row in result.details["concepts"]]
    )
    assert result.scores["concepts_auroc_above_token"].value == pytest.approx(lead)
    assert metric_of("concepts_auroc_token").better == "neither"
    assert json.loads(json.dumps(result.to_json()))["concepts"][0]["share"] == pytest.approx(
        case["share"]
    )
    assert result == measure(ToyDictionary(torch.eye(4), torch.eye(4), threshold=0.5), data)


def test_a_dictionary_that_never_fires_knows_nothing(data):
    result = measure(ToyDictionary(torch.zeros(4, 6), torch.zeros(6, 4)), data)
    for method in ("best_latent", "k1", "k5"):
        assert all(
            row[method]["auroc"] == 0.5 and row[method]["accuracy"] == 0.5
            for row in result.details["concepts"]
        )
    assert result.details["concepts"][0]["probe"]["auroc"] > 0.99


def test_halves_are_files(data):
    assert data.facts["train_files"] == data.facts["test_files"] == 12
    assert data.facts["tokens"] == data.facts["token_rule_tokens"] * 2 == 24 * 80


def test_wrong_dictionaries_and_texts_are_refused(data):
    with pytest.raises(ValueError, match="width 3, the activations 4"):
        measure(ToyDictionary(torch.eye(3), torch.eye(3)), data)
    other = ToyDictionary(torch.eye(4), torch.eye(4))
    other.hook = Hook(3)
    with pytest.raises(ValueError, match=r"reads blocks\.3\.hook_resid_post, the data blocks\.0"):
        measure(other, data)
    check_evals(["concepts"], Source())
    with pytest.raises(ValueError, match=r"concepts: labels are known for the corpus stdlib only"):
        check_evals(["concepts"], replace(Source(), corpus="a.txt"))
    assert "concepts" in EVALS


def test_too_few_tokens_are_refused():
    text = LabelledText("a", "abc", np.zeros((3, 1), np.int16))
    corpus = LabelledCorpus((Family("f", ("x", "y")),), (text, replace(text, name="b")))
    labels = label_tokens(corpus, byte_tokenizer())
    windows = labelled_windows(labels, byte_tokenizer(), context=8)
    batch = Windows(torch.zeros(2, 8, 4), windows.tokens, windows.doc, windows.pos, windows.keep)

    class Model:
        hook = HOOK

    with pytest.raises(
        ValueError, match="no concept has 50 tokens and 3 files in each half of 6 tokens"
    ):
        prepare_labelled(HeldOut(Source(), Model(), [(batch, None)], windows), labels)
