import math

import pytest
import torch

from saelab import stats
from saelab.types import Score


def clustered(generator, n_docs=40):
    """Documents of different length whose items share a document effect; the true ratio is 2."""
    size = torch.randint(2, 12, (n_docs,), generator=generator)
    doc = torch.repeat_interleave(torch.arange(n_docs), size)
    effect = torch.randn(n_docs, generator=generator)[doc]
    y = 2 + effect + 0.3 * torch.randn(len(doc), generator=generator)
    return y, torch.ones_like(y), doc


def test_bootstrap_ratio_is_the_ratio_of_sums_and_its_interval_covers():
    generator = torch.Generator().manual_seed(0)
    covered, naive = 0, 0
    for trial in range(200):
        y, one, doc = clustered(generator)
        score = stats.bootstrap_ratio(y, one, doc, n_boot=300, seed=trial)
        assert score.value == pytest.approx(float(y.mean()), rel=1e-5)
        covered += score.low <= 2 <= score.high
        each = stats.bootstrap_ratio(y, one, torch.arange(len(y)), n_boot=300, seed=trial)
        naive += each.low <= 2 <= each.high
    # nominal 0.95; the percentile interval of 40 clusters is a little short
    assert covered / 200 >= 0.88
    assert naive / 200 < 0.75  # tokens are no independent units: the reason for whole documents


def test_bootstrap_is_reproducible_and_seeded():
    y, one, doc = clustered(torch.Generator().manual_seed(1))
    first, again, other = (stats.bootstrap_ratio(y, one, doc, seed=s) for s in (3, 3, 4))
    assert first == again
    assert (first.low, first.value, first.n) != (
        other.low,
        other.value,
        other.n,
    )
    assert first.n == 40


def test_resamples_in_chunks_draw_whole_samples(monkeypatch):
    monkeypatch.setattr(stats, "RESAMPLED_AT_ONCE", 30)
    resampling = stats.Resampling(torch.ones(7, 1), n_boot=50)
    assert resampling.samples.shape == (50, 1)
    assert (resampling.samples == 7).all()


def test_degenerate_bootstraps_say_why():
    one = stats.bootstrap_ratio(torch.ones(3), torch.ones(3), torch.zeros(3))
    assert (one.value, one.low, one.high) == (1, None, None)
    assert "at least 2 documents" in one.reason
    nothing = stats.bootstrap_ratio(torch.ones(3), torch.zeros(3), torch.arange(3))
    assert (nothing.value, nothing.low) == (None, None)
    assert "denominator is 0" in nothing.reason
    rare = stats.bootstrap_ratio(torch.ones(4), torch.tensor([1.0, 0, 0, 0]), torch.arange(4))
    assert rare.value == 4
    assert rare.low is None
    assert "resamples" in rare.reason
    with pytest.raises(ValueError, match="3, 2 and 3 items"):
        stats.bootstrap_ratio(torch.ones(3), torch.ones(2), torch.ones(3))
    with pytest.raises(ValueError, match="one row of sums per cluster"):
        stats.Resampling(torch.ones(3))
    with pytest.raises(ValueError, match="n_boot is 0"):
        stats.Resampling(torch.ones(3, 1), n_boot=0)


def test_resampling_of_a_variance_like_statistic():
    sums = torch.tensor([[1.0, 4.0], [2.0, 5.0], [1.5, 6.0]])
    score = stats.Resampling(sums).score(lambda s: 1 - s[:, 0] / s[:, 1])
    assert score.value == pytest.approx(1 - 4.5 / 15)
    assert 1 - 2 / 5 <= score.low < score.value < score.high <= 1 - 1 / 4


def test_paired_difference_is_the_t_interval():
    # 0.5, 1, 1.5: mean 1, s 0.5
    score = stats.paired_difference([1.0, 2.0, 3.5], [0.5, 1.0, 2.0])
    half = 4.302652729911275 * 0.5 / math.sqrt(3)
    assert score.value == pytest.approx(1)
    assert (score.low, score.high) == (pytest.approx(1 - half), pytest.approx(1 + half))
    assert score.n == 3


def test_one_pair_has_no_interval():
    score = stats.paired_difference([1.0], [0.25])
    assert score == Score(0.75, n=1, reason=score.reason)
    assert "at least 2 seeds" in score.reason


@pytest.mark.parametrize(
    ("treatment", "baseline", "message"),
    [
        ([1.0], [1.0, 2.0], "1 treatment values and 2"),
        ([], [], "at least one"),
        ([math.nan], [1.0], "finite"),
    ],
)
def test_pairs_that_are_none_are_refused(treatment, baseline, message):
    with pytest.raises(ValueError, match=message):
        stats.paired_difference(treatment, baseline)


def test_mean_score():
    score = stats.mean_score([1.0, 3.0])
    assert score.value == 2
    assert score.high - 2 == pytest.approx(12.706204736 * math.sqrt(2) / math.sqrt(2))


def test_holm():
    assert stats.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert stats.holm([0.9, 0.8]) == [1, 1]
    assert stats.holm([]) == []
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        stats.holm([1.5])


def test_minimum_detectable_difference():
    d = [0.0, 1.0, 2.0, 3.0, 4.0]  # s = sqrt(2.5), 4 degrees of freedom
    expected = (2.7764451052 + 0.9409646) * math.sqrt(2.5) / math.sqrt(5)
    assert stats.minimum_detectable_difference(d) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="1 differences"):
        stats.minimum_detectable_difference([1.0])


def test_the_p_value_agrees_with_the_interval_and_with_scipy():
    from scipy.stats import ttest_1samp

    for gaps in ([0.02, 0.04, 0.03], [0.02, 0.04, -0.01], [1.0, 2.0, 2.5, 0.2]):
        p, interval = stats.paired_p(gaps), stats.mean_score(gaps)
        assert p == pytest.approx(float(ttest_1samp(gaps, 0).pvalue))
        assert interval.low is not None and (p < 0.05) == (interval.low > 0)
    assert stats.paired_p([0.0, 0.0]) == 1 and stats.paired_p([0.1, 0.1]) == 0
    with pytest.raises(ValueError, match="at least 2"):
        stats.paired_p([0.1])
