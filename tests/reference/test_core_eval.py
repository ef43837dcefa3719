"""Core evaluation against closed forms and against the formulas written out token by token."""

import json

import pytest
import torch

from saelab.evals.core.data import prepare
from saelab.evals.core.measure import measure
from saelab.types import Score
from toy_lm import (
    D,
    ToyDictionary,
    ToyLM,
    constant,
    held,
    identity,
    random_dictionary,
    windows,
    zero,
)

LM = ToyLM()


def compatible(result) -> dict[str, Score]:
    """Scores in SAEBench's own formulas."""
    return {name: Score(**score) for name, score in result.details["compatible"].items()}


def latents(result, name: str) -> torch.Tensor:
    """One number per latent, as written."""
    return torch.tensor([float("nan") if v is None else v for v in result.details["latents"][name]])


@pytest.fixture(scope="module")
def data():
    return prepare(held(LM, windows(LM)))


def close(value, expected, tolerance=1e-5):
    assert value == pytest.approx(float(expected), rel=tolerance, abs=tolerance)


def kept(batches):
    return torch.cat([w.flat for w, _ in batches]).double()


def test_identity_is_perfect_in_both_forms(data):
    result = measure(identity(), data)
    for scores in (result.scores, compatible(result)):
        for name in ("explained_variance", "ce_loss_score", "kl_div_score", "cossim", "l2_ratio"):
            close(scores[name].value, 1)
            close(scores[name].low, 1)
            close(scores[name].high, 1)
        close(scores["relative_reconstruction_bias"].value, 1)
        close(scores["kl_div_with_sae"].value, 0)
        close(scores["l0"].value, D)
    assert result.scores["ce_loss_with_sae"].value == pytest.approx(
        result.scores["ce_loss_without_sae"].value, abs=1e-6
    )
    assert (
        result.scores["ce_loss_with_ablation"].value
        > result.scores["ce_loss_without_sae"].value + 0.1
    )
    close(result.scores["l1"].value, kept(data.batches).abs().sum(1).mean())


def test_all_zero_dictionary_scores_zero_and_says_what_is_undefined(data):
    result = measure(zero(), data)
    x = kept(data.batches)
    mean = x.mean(0)
    close(
        result.scores["explained_variance"].value,
        -(mean @ mean) / (x - mean).square().sum(1).mean(),
    )
    close(result.scores["ce_loss_score"].value, 0)
    close(result.scores["kl_div_score"].value, 0)
    close(result.scores["mse"].value, x.square().sum(1).mean())
    assert all(result.scores[name].value == 0 for name in ("l0", "l1", "l2_ratio", "frac_alive"))
    assert result.scores["dead"].value == 1
    for name in ("cossim", "relative_reconstruction_bias"):
        assert result.scores[name].value is None
        assert result.scores[name].reason
        assert compatible(result)[name].value is None
    assert "all-zero" in result.scores["cossim"].reason
    json.dumps(result.to_json(), allow_nan=False)  # raises on NaN


def test_shipped_variance_of_the_zero_dictionary_has_its_closed_form(data):
    """-(S / d^2) / (1 - S / d^2): where the published -0.785 of an untrained SAE comes from."""
    squares, batch = kept(data.batches).square().sum(1), data.positions.window // 16
    S = torch.stack([squares[batch == b].mean() for b in batch.unique()]).mean()
    close(
        compatible(measure(zero(), data))["explained_variance"].value,
        float(-(S / D**2) / (1 - S / D**2)),
    )


def test_published_value_of_the_untrained_sae():
    """Activations whose mean squared norm is 0.4398 d^2 give exactly the published explained
    variance, -0.785.
    """
    first = prepare(held(LM, windows(LM, n=16, per_batch=16)))
    unit = float((0.4398 * D**2 / kept(first.batches).square().sum(1).mean()).sqrt())
    lm = ToyLM(unit=unit)
    result = measure(zero(), prepare(held(lm, windows(lm, n=16, per_batch=16))))
    assert compatible(result)["explained_variance"].value == pytest.approx(-0.785, abs=5e-4)


def test_special_tokens_are_kept_by_the_corrected_ablation_only(data):
    result = measure(zero(), data)
    assert compatible(result)["ce_loss_score"].value != pytest.approx(0, abs=1e-3)
    assert data.zero_all.ce.mean() != pytest.approx(data.zero.ce.mean().item(), abs=1e-3)
    lm, kept_bos = ToyLM(), []
    original = lm.resume
    batches = windows(lm)
    prepared = prepare(held(lm, batches))
    lm.resume = lambda x, state: (kept_bos.append(x[:, 0].clone()), original(x, state))[1]  # type: ignore[method-assign]
    measure(random_dictionary(), prepared)
    # the clean logits are kept, so that the model is resumed once a batch
    for bos, (batch, _) in zip(kept_bos, batches, strict=True):
        assert torch.equal(bos, batch.x[:, 0])


def test_mean_is_the_zero_of_explained_variance_and_of_the_mean_ablation_score(data):
    result = measure(constant(data.mean), data)
    close(result.scores["explained_variance"].value, 0)
    close(result.scores["ce_loss_score_mean"].value, 0)
    close(result.scores["kl_div_score_mean"].value, 0)
    assert result.scores["ce_loss_score"].value != pytest.approx(0, abs=1e-3)
    assert measure(random_dictionary(), data).scores["explained_variance"].value < 0
    assert result.scores["kl_div_with_sae"].value > 0.01


def test_compatible_formulas_written_out_token_by_token(data):
    """20 windows make one batch of 16 and one of 4: batch means and token means differ."""
    sae = random_dictionary()
    x = kept(data.batches).float()
    z = sae.encode(x)
    x_hat, batch = sae.decode(z), data.positions.window // 16
    rows = {name: [] for name in ("mse", "legacy", "bias", "S", "R")}
    for b in (0, 1):
        xb, yb = x[batch == b], x_hat[batch == b]
        err = (xb - yb).square().sum(1)
        rows["mse"] += (err / len(xb)).tolist()
        rows["legacy"] += (1 - err / (xb - xb.mean(0)).square().sum(1)).tolist()
        rows["bias"].append(float(yb.square().sum(1).mean() / (xb * yb).sum(1).mean()))
        rows["S"].append(float(xb.square().sum(1).mean()))
        rows["R"].append(float(err.mean()))
    mean = {name: sum(values) / len(values) for name, values in rows.items()}
    shipped = {name: score.value for name, score in compatible(measure(sae, data)).items()}
    close(shipped["mse"], mean["mse"])
    close(shipped["explained_variance_legacy"], mean["legacy"])
    close(shipped["relative_reconstruction_bias"], mean["bias"])
    close(shipped["explained_variance"], 1 - mean["R"] / (mean["S"] - (mean["S"] / D) ** 2))
    close(shipped["l1"], float(z.sum(1).mean()))
    close(shipped["l0"], float((z != 0).sum(1).float().mean()))
    close(shipped["l2_ratio"], float((x_hat.norm(dim=1) / x.norm(dim=1)).mean()))
    close(shipped["cossim"], float(torch.cosine_similarity(x, x_hat).mean()))
    close(shipped["frac_alive"], float((z > 0).any(0).float().mean()))
    density = (z > 0).float().mean(0)
    close(
        shipped["normalized_freq_over_10_percent"],
        float(density[density > 0.1].sum() / density.sum()),
    )
    assert shipped["total_tokens_eval_reconstruction"] == 20 * 9


def test_ce_and_kl_written_out_window_by_window(data):
    sae = random_dictionary()
    sums = {"ce": [], "ce_clean": [], "ce_zero": [], "kl": [], "kl_zero": []}
    for w, _ in data.batches:
        for b in range(len(w.x)):
            tokens, keep, shape = w.tokens[b : b + 1], w.keep[b], w.x[b : b + 1].shape[:2]
            x = w.x[b : b + 1]
            log_p = LM.resume(x, shape)[0].log_softmax(1)
            for name, new in (
                ("", sae.decode(sae.encode(x))),
                ("_zero", torch.zeros_like(x)),
                ("_clean", x),
            ):
                log_q = LM.resume(torch.where(keep[None, :, None], new, x), shape)[0].log_softmax(1)
                ce = [-float(log_q[t, tokens[0, t + 1]]) for t in range(len(keep) - 1) if keep[t]]
                sums[f"ce{name}"] += ce
                if name != "_clean":
                    kl = (log_p.exp() * (log_p - log_q)).sum(1)
                    sums[f"kl{name}"] += kl[keep].tolist()
    mean = {name: sum(values) / len(values) for name, values in sums.items()}
    scores = measure(sae, data).scores
    close(scores["ce_loss_with_sae"].value, mean["ce"])
    close(scores["ce_loss_without_sae"].value, mean["ce_clean"])
    close(scores["ce_loss_with_ablation"].value, mean["ce_zero"])
    close(
        scores["ce_loss_score"].value,
        (mean["ce_zero"] - mean["ce"]) / (mean["ce_zero"] - mean["ce_clean"]),
        1e-4,
    )
    close(scores["kl_div_with_sae"].value, mean["kl"], 1e-4)
    close(scores["kl_div_score"].value, 1 - mean["kl"] / mean["kl_zero"], 1e-4)


def test_corrected_forms_do_not_depend_on_the_unit_and_shipped_ones_do(data):
    lm = ToyLM(unit=3)
    sae = random_dictionary()
    scaled = ToyDictionary(sae.W_enc, sae.directions, threshold=3 * sae.threshold)
    one, three = measure(sae, data), measure(scaled, prepare(held(lm, windows(lm))))
    for name in (
        "explained_variance",
        "cossim",
        "ce_loss_score",
        "kl_div_score",
        "l0",
        "l2_ratio",
        "freq_over_10_percent",
    ):
        close(three.scores[name].value, one.scores[name].value, 1e-4)
    close(three.scores["mse"].value, 9 * one.scores["mse"].value, 1e-4)
    close(three.scores["l1"].value, 3 * one.scores["l1"].value, 1e-4)
    shipped = [compatible(r)["explained_variance"].value for r in (one, three)]
    assert shipped[0] != pytest.approx(shipped[1], rel=0.05)


def test_nothing_depends_on_the_language_models_batches(data):
    whole = prepare(held(LM, windows(LM, per_batch=20)))
    one, other = measure(random_dictionary(), data), measure(random_dictionary(), whole)
    for scores, same in ((one.scores, other.scores), (compatible(one), compatible(other))):
        for name, score in scores.items():
            assert score.value is not None
            close(same[name].value, score.value, 1e-4)
            assert (same[name].low is None) == (score.low is None)
            close(same[name].low or 0, score.low or 0, 1e-4)
    torch.testing.assert_close(latents(one, "density"), latents(other, "density"))
    torch.testing.assert_close(latents(one, "consistency"), latents(other, "consistency"))


def test_codes_and_decoder_may_trade_scale(data):
    """Twice the codes with half the directions is the same dictionary; only SAEBench's l1 sees a
    difference.
    """
    sae = random_dictionary()
    double = ToyDictionary(2 * sae.W_enc, sae.directions / 2, threshold=2 * sae.threshold)
    one, two = measure(sae, data), measure(double, data)
    close(two.scores["l1"].value, one.scores["l1"].value)
    close(compatible(two)["l1"].value, 2 * compatible(one)["l1"].value)
    torch.testing.assert_close(
        latents(two, "mean_activation"), latents(one, "mean_activation"), equal_nan=True
    )


def test_underflow_is_undefined_as_shipped_and_finite_in_the_corrected_form():
    result = measure(random_dictionary(), prepare(held(ToyLM(sharpness=200), windows(LM))))
    for name in ("kl_div_score", "kl_div_with_sae", "kl_div_with_ablation"):
        assert compatible(result)[name].value is None
        assert "underflows" in compatible(result)[name].reason
        assert result.scores[name].value is not None
    assert result.scores["kl_div_with_sae"].value > 1


def test_one_zero_reconstruction_leaves_the_corrected_cosine_defined(data):
    sae = random_dictionary()
    some = ToyDictionary(sae.W_enc, sae.directions, threshold=2.5)
    x = kept(data.batches).float()
    x_hat = some.decode(some.encode(x))
    fires = x_hat.norm(dim=1) > 0
    assert 0 < fires.sum() < len(x)
    result = measure(some, data)
    assert compatible(result)["cossim"].value is None
    close(
        result.scores["cossim"].value, float(torch.cosine_similarity(x[fires], x_hat[fires]).mean())
    )
