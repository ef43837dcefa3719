import json
from dataclasses import replace

import pytest
import torch

from saelab.evals import EVALS, check_evals
from saelab.evals.common.fold import decoder_norms
from saelab.evals.core import data as core_data
from saelab.evals.core.data import prepare
from saelab.evals.core.latents import max_cosine
from saelab.evals.core.measure import measure
from saelab.evals.result import Evaluation
from saelab.runs import Source
from saelab.sae.activations import Gated, TopK
from saelab.sae.module import SAE
from saelab.types import Dictionary, Hook, LanguageModel, Score
from toy_lm import D, ToyDictionary, ToyLM, held, identity, random_dictionary, windows, zero

LM = ToyLM()
NAMES = """l0 explained_variance mse cossim l2_ratio relative_reconstruction_bias ce_loss_score ce_loss_with_sae
ce_loss_without_sae ce_loss_with_ablation kl_div_score kl_div_with_sae kl_div_with_ablation dead frac_alive l1
freq_over_1_percent freq_over_10_percent average_max_decoder_cosine_sim average_max_encoder_cosine_sim
ce_loss_score_mean kl_div_score_mean"""


@pytest.fixture(scope="module")
def data():
    return prepare(held(LM, windows(LM)))


def test_toys_satisfy_the_protocols():
    assert isinstance(LM, LanguageModel)
    assert isinstance(random_dictionary(), Dictionary)


def test_all_names_are_there_with_intervals_around_the_value(data):
    scores = measure(random_dictionary(), data).scores
    assert set(scores) == set(NAMES.split())
    for name, score in scores.items():
        if score.low is None:
            assert score.reason, name
        else:
            assert score.low <= score.high, name
    for name in (
        "l0",
        "explained_variance",
        "mse",
        "ce_loss_with_sae",
        "kl_div_with_sae",
        "cossim",
    ):
        assert scores[name].low < scores[name].value < scores[name].high
        assert scores[name].n == 7


def test_measuring_is_deterministic_and_leaves_the_data_alone(data):
    before = data.batches[0][0].x.clone()
    first, second = measure(random_dictionary(), data), measure(random_dictionary(), data)
    assert first.to_json() == second.to_json()
    assert torch.equal(data.batches[0][0].x, before)


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_only_the_resumed_forward_runs_per_dictionary(data, monkeypatch, kept):
    """One forward for every batch, and one more where its clean logits had no room: the same
    numbers.
    """
    lm = ToyLM()
    of_a_batch = lm.resume(data.batches[0][0].x, data.batches[0][1]).nbytes
    monkeypatch.setattr(core_data, "LOGITS_KEPT", kept * of_a_batch)
    calls = []
    resume = lm.resume
    lm.resume = lambda x, state: (calls.append(1), resume(x, state))[1]
    prepared = prepare(held(lm, windows(LM)))
    lm.capture = None
    calls.clear()
    result = measure(random_dictionary(), prepared)
    assert len(prepared.batches) == 3 and len(calls) == 6 - kept
    assert result.to_json() == measure(random_dictionary(), data).to_json()


def test_an_all_zero_stream_is_run_once_and_only_where_it_is_the_same_everywhere(data):
    class Positional(ToyLM):
        """A model whose layers above the hook see the position (as they do at `mlp_out`)."""

        def resume(self, x, state, since=0):
            return (
                super().resume(x, state, since)
                + torch.arange(since, x.shape[1]).view(-1, 1) * torch.arange(11) * 0.1
            )

    for lm, calls_expected in ((ToyLM(), 3 * 3 + 1), (Positional(), 3 * 4)):
        calls = []
        resume = lm.resume
        lm.resume = lambda x, state, calls=calls, resume=resume: (
            calls.append(1),
            resume(x, state),
        )[1]
        prepared = prepare(held(lm, windows(LM)))
        assert len(calls) == calls_expected
        expected = [
            lm.loss(resume(torch.zeros_like(w.x), state), w.tokens)[w.keep[:, :-1]]
            for w, state in data.batches
        ]
        torch.testing.assert_close(
            prepared.zero_all.ce[prepared.positions.scored > 0], torch.cat(expected)
        )


def latents(result, name) -> torch.Tensor:
    """One number per latent, as written."""
    return torch.tensor([float("nan") if v is None else v for v in result.details["latents"][name]])


def test_json_says_all_of_it(data):
    for dictionary in (random_dictionary(), zero()):
        result = measure(dictionary, data)
        back = json.loads(json.dumps(result.to_json(), allow_nan=False))
        scores = {name: Score(**score) for name, score in back["scores"].items()}
        assert scores == result.scores
        assert set(back["compatible"]["mse"]) == set(back["scores"]["mse"])
        assert back["facts"] == result.details["facts"] and back["eval"] == "core"
        assert back["latents"] == result.details["latents"]
        assert set(result.files) == {"latents"}


def test_densities_are_float32_in_their_shortest_form(data):
    result = measure(random_dictionary(), data)
    z = random_dictionary().encode(torch.cat([w.flat for w, _ in data.batches]))
    assert torch.equal(latents(result, "density"), (z > 0).float().mean(0))


def test_the_density_figure_counts_every_latent_once(data):
    for dictionary, n, n_dead in (
        (random_dictionary(), 16, None),
        (zero(), 4, 4),
        (identity(), 12, 1),
    ):
        result = measure(dictionary, data)
        (figure,) = result.figures
        dead = int((latents(result, "density") == 0).sum())
        # one coordinate is never negative
        assert n_dead in (None, dead) and figure.apart["dead"] == pytest.approx(dead / n)
        assert sum(figure.counts["latents"]) == pytest.approx(1 - dead / n)


def test_consistency_and_mean_activation(data):
    dictionary = random_dictionary()
    result = measure(dictionary, data)
    j = int(latents(result, "density").argmax())
    fired, tokens, mass = 0, 0, 0.0
    for w, _ in data.batches:
        z = dictionary.encode(w.x)[..., j] * w.keep
        fired += int((z > 0).any(1).sum())
        tokens += int((z > 0).sum())
        mass += float(z.sum())
    assert float(latents(result, "consistency")[j]) == pytest.approx(tokens / fired)
    norm = float(dictionary.directions[j].norm())
    assert float(latents(result, "mean_activation")[j]) == pytest.approx(
        norm * mass / tokens, rel=1e-5
    )


def test_a_few_windows_at_a_time_changes_nothing(data, monkeypatch):
    whole = measure(random_dictionary(), data).to_json()
    monkeypatch.setattr(core_data, "CODES_AT_ONCE", 300)  # two windows of 9 tokens and 16 latents
    assert measure(random_dictionary(), data).to_json() == whole


def test_one_document_has_no_interval(data):
    scores = measure(random_dictionary(), prepare(held(LM, windows(LM, docs=1)))).scores
    assert scores["explained_variance"].low is None
    assert "at least 2 documents" in scores["explained_variance"].reason


def test_dictionary_without_encoder_matrix(data):
    class Bare:
        hook = None

        def __init__(self, inner: ToyDictionary):
            self.directions, self.encode, self.decode = inner.directions, inner.encode, inner.decode

    result = measure(Bare(random_dictionary()), data)
    score = result.scores["average_max_encoder_cosine_sim"]
    assert score.value is None and score.reason == "there is no encoder matrix"
    assert result.to_json()["latents"]["encoder_norm"] is None


def test_our_sae_and_the_gated_bias(data):
    sae = SAE(D, 12, TopK(3), hook=LM.hook)
    result = measure(sae, data)
    assert 0 < result.scores["l0"].value <= 3
    assert result.details["latents"]["encoder_decoder_cosine"] == pytest.approx(
        [1.0] * 12, abs=1e-5
    )
    gated = SAE(D, 12, Gated(12))
    with torch.no_grad():
        gated.act.b_mag.fill_(0.5)
    assert measure(gated, data).details["latents"]["encoder_bias"] == [0.5] * 12


def test_wrong_dictionaries_and_broken_data_are_refused(data):
    narrow = ToyDictionary(torch.ones(3, 4), torch.ones(4, 3))
    with pytest.raises(ValueError, match="width 3, the activations 6"):
        measure(narrow, data)
    elsewhere = random_dictionary()
    elsewhere.hook = Hook(4, "mlp_out")
    with pytest.raises(
        ValueError, match=r"reads blocks.4.hook_mlp_out, the data blocks.1.hook_resid_post"
    ):
        measure(elsewhere, data)
    with pytest.raises(ValueError, match="no token is left"):
        prepare(held(LM, []))
    (first, state), *rest = windows(LM)
    with pytest.raises(ValueError, match="no token is left"):
        prepare(held(LM, [(replace(first, keep=torch.zeros_like(first.keep)), state)]))
    x = rest[0][0].x.clone()
    x[1, 2, 3] = torch.nan
    with pytest.raises(ValueError, match=r"blocks.1.hook_resid_post are not finite in batch 1"):
        prepare(held(LM, [(first, state), (replace(rest[0][0], x=x), rest[0][1])]))


def test_norms_of_decoder_rows_are_1_where_a_row_is_0():
    dictionary = random_dictionary()
    dictionary.directions[3] = 0
    norms = decoder_norms(dictionary)
    assert norms[3] == 1
    unit = (dictionary.directions / norms.unsqueeze(1)).norm(dim=1)
    torch.testing.assert_close(unit, torch.ones(16).index_fill(0, torch.tensor(3), 0))


def test_max_cosine():
    rows = torch.tensor([[1.0, 0], [0, 2], [3, 3]])
    torch.testing.assert_close(max_cosine(rows), torch.tensor([0.5**0.5] * 3))
    assert max_cosine(rows[:1]).tolist() == [-float("inf")]


def test_table_of_evaluations(monkeypatch):
    check_evals(["core"], Source())
    with pytest.raises(ValueError, match=r"'cor' \(did you mean 'core'\?\); there are: core"):
        check_evals(["cor"], Source())
    picky = Evaluation(
        (), lambda source: [f"{source.model} is no instruct model"], prepare, measure
    )
    monkeypatch.setitem(EVALS, "judge", picky)
    with pytest.raises(ValueError, match="judge: pylm is no instruct model"):
        check_evals(["core", "judge"], Source())
