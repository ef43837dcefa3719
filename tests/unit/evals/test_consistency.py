"""Causal consistency on a model where one direction decides the next token and another only goes
along with it.
"""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from reader_lm import (
    COPY,
    DECIDED,
    TOKENIZER,
    TRUE,
    UPPER,
    D,
    Reader,
    V,
    corpus,
    labelled_windows_of,
)
from saelab.effects.intervene import TYPES
from saelab.effects.reactions import captured_text
from saelab.effects.sets import set_effects
from saelab.evals import EVALS, check_evals
from saelab.evals.consistency.measure import measure, prepare_labelled
from saelab.evals.consistency.tokens import MAX_CONCEPTS, decided_tokens
from saelab.ground.held_out import HeldOut
from saelab.runs import Source
from saelab.text.labels.labelled import (
    Family,
    LabelledCorpus,
    label_tokens,
    labelled_windows,
)
from saelab.types import Hook, Windows
from toy_lm import ToyDictionary, ToyLM, windows


def prepared(lm, labelled: LabelledCorpus, **options):
    return prepare_labelled(*labelled_windows_of(lm, labelled), **options)


@pytest.fixture(scope="module")
def data():
    return prepared(Reader(), corpus(), decode=lambda ids: [TOKENIZER.decode([i]) for i in ids])


def features(*left_out: int, threshold: float = 0.0) -> ToyDictionary:
    kept = torch.eye(D, dtype=torch.float32)[[j for j in range(D) if j not in left_out]]
    return ToyDictionary(kept.T, kept, threshold=threshold)


# The question -------------------------------------------------------------------------------------


def test_what_a_concept_decides(data):
    (question,) = data.questions
    assert question.concept.name == "case=yes" and sorted(question.shown) == ["x", "y"]
    assert data.facts["skipped"] == {"coin=heads": "it decides no next token"}
    assert data.facts["train_files"] == data.facts["test_files"] == 6


def test_positions_are_test_tokens_with_the_right_next_token(data):
    (question,) = data.questions
    shown = labelled_windows(label_tokens(corpus(), TOKENIZER), TOKENIZER, context=41)
    tokens = shown.tokens.long()
    assert len(question.decided) == 32 and len(question.elsewhere) == len(question.without) == 16
    assert question.n_decided > 200
    for rows, upper, inside in (
        (question.decided, True, True),
        (question.elsewhere, True, False),
        (question.without, False, None),
    ):
        window, position = data.text.window[rows], data.text.position[rows]
        assert (position > 0).all(), "BOS is never changed"
        assert (torch.isin(tokens[window, position], UPPER) == upper).all()
        assert (
            torch.isin(rows, data.halves.test).all()
            and not torch.isin(rows, data.halves.train).any()
        )
        there = position < 40  # the others' next token is in the next window
        following = torch.isin(tokens[window[there], position[there] + 1], DECIDED)
        assert inside is None or (following == inside).all()
    assert (
        len(
            set(data.halves.file[data.halves.train].tolist())
            & set(data.halves.file[data.halves.test].tolist())
        )
        == 0
    )


def test_decided_tokens_by_hand():
    """Token 1 follows the concept in 4 of 10 cases and else in 0; 2 as often as without it; 3 in
    one file only.
    """
    n = 300
    holds = torch.arange(2 * n) < n
    following = torch.cat([torch.arange(n) % 10, torch.full((n,), 2)])
    following[:n] = torch.tensor([1, 1, 1, 1, 2, 2, 2, 2, 2, 2])[following[:n]]
    file = torch.arange(2 * n) % 7
    following[torch.arange(2 * n) < 21], file[torch.arange(2 * n) < 21] = 3, 9
    assert decided_tokens(following, holds, file).tolist() == [1]
    file[:3] = torch.arange(3)
    assert decided_tokens(following, holds, file).tolist() == [1, 3]
    # 2 is only twice as frequent there
    assert decided_tokens(following, ~holds, file).tolist() == []
    assert decided_tokens(torch.full((5,), -1), holds[:5], file[:5]).tolist() == []


def test_shuffled_labels_decide_nothing():
    with pytest.raises(
        ValueError,
        match=r"no concept decides tokens often enough \(.*case=yes: it decides no next token",
    ):
        prepared(Reader(), corpus(shuffled=True))


def test_at_most_sixteen_concepts_one_of_each_family_first():
    labelled = corpus()
    generator = np.random.default_rng(0)
    families = tuple(Family(f"f{i}", ("no", "a", "b")) for i in range(9))
    texts = []
    for text in labelled.texts:
        # either value goes with upper case
        labels = text.labels[:, :1] * generator.integers(1, 3, (len(text.labels), 9))
        texts.append(replace(text, labels=labels.astype(np.int16)))
    data = prepared(Reader(), LabelledCorpus(families, tuple(texts)))
    names = [question.concept.family for question in data.questions]
    assert len(names) == MAX_CONCEPTS and len(set(names[:9])) == 9 and len(set(names[9:])) == 7
    assert list(data.facts["skipped"].values()) == ["16 other concepts are asked about"] * 2


# The answer ---------------------------------------------------------------------------------------


def test_the_true_carrier_has_the_known_effect(data):
    result = measure(features(), data, carriers=1)
    (row,), (question,) = result.details["concepts"], data.questions
    assert (
        row["carriers"] == [TRUE]
        and row["auroc"] == [1.0]
        and row["coverage"] == 1
        and row["reason"] == ""
    )
    lm, code = Reader(), data.x[:, TRUE]
    clean, off = lm.log_mass(code[question.decided]), lm.log_mass(torch.zeros(1))
    active = code[code > 0]
    expected = {
        "zero": (clean - off).mean(),
        "mean": (clean - lm.log_mass(code.mean())).mean(),
        "steer": lm.log_mass(2 * active.std()) - off,
    }
    for name, value in expected.items():
        assert row[name]["carriers"] == pytest.approx(float(value), abs=1e-5)
    p, q = clean.exp(), off.exp()
    kl = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    assert row["zero"]["kl"]["carriers"] == pytest.approx(float(kl.mean()), abs=1e-5)
    for name in TYPES:
        effect = row[name]
        for group in ("control", "others"):  # the model reads no other direction
            assert (
                effect[group]
                == effect["kl"][group]
                == effect["signed"][group]
                == 0
                < effect["carriers"]
            )
            assert effect[f"above_{group}"]["value"] == pytest.approx(effect["carriers"], abs=1e-6)
        assert effect["above_control"]["low"] > 0 and effect["above_control"]["n"] == 6
        assert result.scores[f"consistency_{name}"].value == pytest.approx(effect["carriers"])
        assert result.scores[f"consistency_{name}_share_above_control"].value == 1
    assert (
        result.scores["consistency_all_types"].value == 1
        and result.scores["consistency_equal_signs"].value == 1
    )
    assert result.scores["consistency_elsewhere"].value == pytest.approx(
        row["elsewhere"]["carriers"]
    )
    assert result.scores["consistency_zero"].reason == "no interval: it takes at least 2 concepts"
    assert (
        result.scores["consistency_agreement"].reason
        == "fewer than 2 types, or too few concepts, to compare"
    )


def test_the_table_says_what_each_concept_loses_and_why_one_is_left_out(data):
    (table,) = measure(features(), data, types=("zero",)).tables.values()
    # types that were not measured have no column
    assert table.columns == ("concept", "decides", "zero", "why there is none")
    ((concept, decides, cell, reason),) = table.rows
    carriers, control, others = cell.split(" / ")
    assert concept == "case=yes" and set(decides.split()) == {"'x'", "'y'"} and reason is None
    assert float(carriers) > 0.1 and float(control) == float(others) == 0
    (table,) = measure(ToyDictionary(torch.zeros(D, 3), torch.eye(D)[:3]), data).tables.values()
    assert table.rows[0][2] is None and table.rows[0][-1].startswith("no latent that is active")


def test_a_copy_that_the_model_does_not_read_has_no_effect(data):
    result = measure(features(TRUE), data, carriers=1)
    (row,) = result.details["concepts"]
    assert row["carriers"] == [COPY - 1] and row["auroc"] == [1.0], (
        "it tells the concept as well as the true one"
    )
    for name in TYPES:
        assert row[name]["carriers"] == row[name]["kl"]["carriers"] == 0
        assert row[name]["control"] > 0 and row[name]["above_control"]["high"] < 0
        assert result.scores[f"consistency_{name}_share_above_control"].value == 0
    assert result.scores["consistency_all_types"].value == 0


def test_carriers_are_changed_together(data):
    """Beside the true latent its inert copy changes nothing, and the norm of the change grows."""
    one, two = (measure(features(), data, carriers=m).details["concepts"][0] for m in (1, 2))
    assert two["carriers"] == [TRUE, COPY]
    for name in ("zero", "mean", "steer"):
        assert two[name]["carriers"] == pytest.approx(one[name]["carriers"], abs=1e-5)
    assert two["zero"]["control"] < 1e-6, (
        "a control is orthogonal to all carriers, hence to the true direction"
    )
    assert one["stretch"] > 0


def test_the_sign_tells_carriers_that_work_against_the_concept():
    row = measure(features(), prepared(Reader(-2.0), corpus()), carriers=1).details["concepts"][0]
    for name in ("zero", "mean", "resample", "steer"):
        assert row[name]["carriers"] < 0 and row[name]["above_control"]["high"] < 0
    assert row["noise"]["carriers"] > 0, "noise has no direction"


def test_latents_chosen_by_shuffled_labels_do_nothing(data):
    result = measure(features(), data, carriers=1)
    assert result.details["concepts"][0]["by_chance"]["carriers"] == 0
    assert (
        result.scores["consistency_by_chance"].value
        == result.details["concepts"][0]["by_chance"]["above_control"]["value"]
        <= 0
    )


def test_dead_and_rare_carriers_are_undefined(data):
    dead = measure(ToyDictionary(torch.zeros(D, 3), torch.eye(D)[:3]), data)
    assert (
        dead.details["concepts"][0]["reason"]
        == "no latent that is active on 30 training tokens tells it better than chance"
    )
    assert (
        dead.scores["consistency_undefined"].value == 1
        and "zero" not in dead.details["concepts"][0]
    )
    score = dead.scores["consistency_zero_above_control"]
    assert (
        score.value is None
        and score.reason == "no concept has carriers that act on enough positions"
    )
    only_true = ToyDictionary(torch.eye(D)[:, :1], torch.eye(D)[:1], threshold=1.45)
    rare = measure(only_true, data)
    assert (
        rare.details["concepts"][0]["reason"].endswith("of 32 decided positions, fewer than 10")
        and 0 < rare.details["concepts"][0]["coverage"] < 0.3
    )


def test_without_another_latent_the_others_are_undefined(data):
    result = measure(ToyDictionary(torch.eye(D)[:, :1], torch.eye(D)[:1]), data)
    effect = result.details["concepts"][0]["zero"]
    assert (
        effect["above_others"]["value"] is None
        and effect["above_others"]["reason"] == "no other latent is active there"
    )
    assert effect["above_control"]["low"] > 0
    assert result.scores["consistency_zero_above_others"].value is None
    json.dumps(result.to_json(), allow_nan=False)


def test_results_are_reproducible_and_types_can_be_chosen(data):
    first = measure(features(), data, types=("zero",))
    assert first.to_json() == measure(features(), data, types=("zero",)).to_json()
    assert (
        "steer" not in first.details["concepts"][0]
        and first.scores["consistency_agreement"].value is None
    )
    steered = measure(features(), data, types=("steer",))
    assert (
        steered.details["concepts"][0]["coverage"] is None
        and steered.scores["consistency_elsewhere"].value is None
    )


def test_a_process_whose_default_is_float64_measures_the_same(data):
    expected = measure(features(), data, types=("zero",), carriers=1).details["concepts"][0][
        "zero"
    ]["carriers"]
    torch.set_default_dtype(torch.float64)
    try:
        found = measure(features(), prepared(Reader(), corpus()), carriers=1)
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.details["concepts"][0]["zero"]["carriers"] == pytest.approx(expected, abs=1e-4)


# One forward --------------------------------------------------------------------------------------


def test_effects_on_a_set_are_those_of_changing_the_position_alone():
    lm = ToyLM()
    batches = [w for w, _ in windows(lm, n=6)]
    text = captured_text(lm, batches)
    rows, members = torch.tensor([3, 17, 40, 41]), torch.tensor([2, 5])
    delta = torch.randn(2, 4, lm.d_in, generator=torch.Generator().manual_seed(0))
    delta[0, 1] = 0
    found = set_effects(text, rows, delta, members)
    tokens = torch.cat([w.tokens for w in batches])
    for c in range(2):
        for i, row in enumerate(rows.tolist()):
            w, t = int(text.window[row]), int(text.position[row])
            x, state = lm.capture(tokens[w : w + 1])
            clean = lm.resume(x, state)[0, t].log_softmax(-1)
            x[0, t] += delta[c, i]
            changed = lm.resume(x, state)[0, t].log_softmax(-1)
            assert found.clean[i] == pytest.approx(float(clean[members].logsumexp(0)), abs=1e-5)
            assert found.changed[c, i] == pytest.approx(
                float(changed[members].logsumexp(0)), abs=1e-5
            )
            assert found.kl[c, i] == pytest.approx(
                float((clean.exp() * (clean - changed)).sum()), abs=1e-5
            )
    assert found.kl[0, 1] == 0 and found.changed[0, 1] == found.clean[1]
    small = set_effects(text, rows, delta, members, max_bytes=1)
    assert torch.allclose(small.changed, found.changed, atol=1e-6)
    everything = set_effects(text, rows, delta, torch.arange(11))
    assert everything.changed.abs().max() < 1e-6


# What is refused ----------------------------------------------------------------------------------


def test_bad_input_is_refused(data):
    with pytest.raises(ValueError, match=f"width 3, the activations {D}"):
        measure(ToyDictionary(torch.eye(3), torch.eye(3)), data)
    other = features()
    other.hook = Hook(2)
    with pytest.raises(ValueError, match=r"reads blocks\.2\.hook_resid_post, the data blocks\.0"):
        measure(other, data)
    with pytest.raises(ValueError, match="intervention types"):
        measure(features(), data, types=("swap",))
    with pytest.raises(ValueError, match="0 carriers per concept; change at least 1"):
        measure(features(), data, carriers=0)
    with pytest.raises(ValueError, match="1 positions per concept"):
        prepared(Reader(), corpus(), positions=1)
    delta = torch.zeros(1, 2, D)
    with pytest.raises(ValueError, match=r"delta is \[1, 2, 24\]; give changes for 3 positions"):
        set_effects(data.text, torch.arange(3), delta, DECIDED)
    with pytest.raises(ValueError, match="the set of tokens is empty"):
        set_effects(data.text, torch.arange(2), delta, DECIDED[:0])
    with pytest.raises(
        ValueError, match=rf"token ids \[{V}\] do not exist; the model has tokens 0 to {V - 1}"
    ):
        set_effects(data.text, torch.arange(2), delta, torch.tensor([V]))


def test_what_is_no_model_and_broken_activations_are_refused():
    labels = label_tokens(corpus(), TOKENIZER)
    shown = labelled_windows(labels, TOKENIZER, context=41)
    x, _ = Reader().capture(shown.tokens.long())
    batch = Windows(x, shown.tokens.long(), shown.doc, shown.pos, shown.keep)
    with pytest.raises(TypeError, match="ToyDictionary is no language model"):
        prepare_labelled(HeldOut(Source(), features(), [(batch, None)], shown), labels)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="no token is left to evaluate"):
        prepare_labelled(HeldOut(Source(), Reader(), [], shown), labels)
    with pytest.raises(
        ValueError, match=r"activations at blocks\.0\.hook_resid_post are not finite"
    ):
        prepare_labelled(
            HeldOut(Source(), Reader(), [(replace(batch, x=x * math.nan), None)], shown), labels
        )
    with pytest.raises(
        ValueError, match=r"consistency: labels are known for the corpus stdlib only"
    ):
        check_evals(["consistency"], replace(Source(), corpus="a.txt"))
    assert EVALS["consistency"].measure is measure
