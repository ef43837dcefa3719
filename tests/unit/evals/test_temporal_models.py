"""The temporal evaluation of language models against closed forms, on a text whose tokens are two
switches: one that keeps its state with probability .97 and one that is thrown anew at every token.
"""

import math
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

from saelab.evals.temporal import persistence
from saelab.evals.temporal.on_models import TemporalData, measure, prepare
from saelab.evals.temporal.text import codes_of
from saelab.ground.held_out import HeldOut
from saelab.runs import Source
from saelab.testing.fakes import FakeModel
from saelab.types import Hook, Structure, Windows

STAY, CONTEXT, N, DOCS = 0.97, 33, 480, 48
LAGS = (1, 2, 4, 8, 16)  # of those that are measured, the ones below the context
SLOW, FAST, EVEN = range(3)  # dimensions: both switches, and whether the position is even


class Switches(FakeModel):
    """x = (slow switch, fast switch, even position) of token 1 + slow + 2 fast; 0 is a BOS."""

    def __init__(self):
        super().__init__(Hook(0), 3, self._embedded, lambda x, since: x[:, since:])

    def _embedded(self, tokens: Tensor) -> Tensor:
        state = (tokens - 1).clamp_min(0)
        even = (torch.arange(tokens.shape[1]) % 2 == 0).expand(tokens.shape)
        return torch.stack([state % 2, state // 2, even], -1).float()

    def decode(self, ids: list[int]) -> list[str]:
        return [f"<{i}>" for i in ids]


@dataclass
class Reads:
    """A latent for each of some dimensions, times `scale`."""

    dimensions: tuple[int, ...] = (SLOW, FAST, EVEN)
    scale: float = 1.0
    blocks: dict[str, range] = field(default_factory=lambda: {"slow": range(1)})
    hook: Hook | None = None

    @property
    def directions(self) -> Tensor:
        return torch.eye(3)[list(self.dimensions)] / self.scale

    @property
    def structure(self) -> Structure:
        return Structure(self.blocks)

    def encode(self, x: Tensor) -> Tensor:
        return self.scale * x[..., list(self.dimensions)].float()

    def decode(self, z: Tensor) -> Tensor:
        return z @ self.directions


def held(
    *, permuted: bool = False, n: int = N, docs: int = DOCS, context: int = CONTEXT
) -> HeldOut:
    """Windows after a BOS, in batches of 100."""
    g = torch.Generator().manual_seed(0)
    slow = [torch.rand(n, generator=g) < 0.5]
    for _ in range(context - 1):
        switched = torch.rand(n, generator=g) < (1 - STAY) / 2
        slow.append(slow[-1] ^ switched)
    fast = torch.rand(n, context, generator=g) < 0.5
    tokens = 1 + torch.stack(slow, 1).long() + 2 * fast.long()
    if permuted:
        tokens = tokens.flatten()[torch.randperm(tokens.numel(), generator=g)].view(n, context)
    if context > 1:
        tokens[:, 0] = 0
    lm = Switches()
    doc = (torch.arange(n) * docs // n).unsqueeze(1).expand(n, context)
    pos = torch.arange(context).expand(n, context)
    batches = []
    for rows in torch.arange(n).split(100):
        x, state = lm.capture(tokens[rows])
        windows = Windows(x, tokens[rows], doc[rows], pos[rows], tokens[rows] > 0)
        batches.append((windows, state))
    return HeldOut(Source(), lm, batches)


@pytest.fixture(scope="module")
def data() -> TemporalData:
    return prepare(held())


@pytest.fixture(scope="module")
def null() -> TemporalData:
    return prepare(held(permuted=True))


def values(dictionary: Reads, data: TemporalData) -> dict[str, float | None]:
    return {key: score.value for key, score in measure(dictionary, data).scores.items()}


def test_a_planted_slow_latent_has_the_values_of_its_chain(data: TemporalData):
    scores = values(Reads(), data)
    for lag in (12, 24):
        # half of what varies around the means of positions is the slow switch
        r2 = pytest.approx(STAY ** (2 * lag) / 2, abs=0.03)
        assert scores[f"prediction_{lag}"] == r2 and scores[f"ceiling_{lag}"] == r2
        assert scores[f"ceiling_share_{lag}"] == pytest.approx(1, abs=0.02)
    persists = sum(STAY**lag for lag in LAGS) / len(LAGS)
    assert scores["autocorrelation"] == pytest.approx(persists, abs=0.03)
    # E[s y] / E[s^2] = (STAY^lag / 4) / (1 / 2)
    assert scores["learned_gain"] == pytest.approx(persists / 2, abs=0.03)
    assert scores["learned_gain_permuted"] == pytest.approx(0, abs=0.01)
    assert scores["position_invariance_block"] == pytest.approx(1, abs=0.002)
    assert scores["position_invariance"] == pytest.approx(2 / 3, abs=0.002)
    on_twice = (1 + STAY) / 4
    stable = pytest.approx(on_twice / (1 - on_twice), abs=0.01)
    assert scores["support_stability_block"] == stable
    assert scores["active_latents_block"] == pytest.approx(0.5, abs=0.03)
    assert scores["active_latents"] == pytest.approx(1.5, abs=0.03)
    # where the switch changes, |change of x| is 2^.5, or 3^.5 where the fast one changes too; the
    # largest of a window is the second only if that holds for each of its K >= 1 changes
    rate = (CONTEXT - 2) * (1 - STAY) / 2
    both = (math.exp(-rate / 2) - math.exp(-rate)) / (1 - math.exp(-rate))  # E[.5^K | K >= 1]
    smoothness = (1 - both) * 2**-0.5 + both * 3**-0.5
    assert scores["t_sae_smoothness_block"] == pytest.approx(smoothness, abs=0.02)


def test_a_shift_changes_the_latent_of_the_position_only(data: TemporalData):
    scores = values(Reads(), data)
    assert scores["shift_agreement_block"] == 1
    # an odd shift turns parity over: of 1.5 active latents 1 is left on average, 2 are active in
    # either
    even_or_odd = {1: 0.5, 4: 1.0, 16: 1.0}
    assert scores["shift_agreement"] == pytest.approx(sum(even_or_odd.values()) / 3, abs=0.02)


def test_permuted_tokens_predict_nothing(null: TemporalData):
    result = measure(Reads(), null)
    scores = {key: score.value for key, score in result.scores.items()}
    for key in ("prediction_12", "ceiling_12", "autocorrelation", "learned_gain"):
        assert scores[key] == pytest.approx(0, abs=0.03), key
    assert scores["ceiling_share_12"] is None
    assert result.scores["ceiling_share_12"].reason.startswith("nothing slow here: the whole")


def test_the_codes_scale_changes_only_the_smoothness_that_is_said_to_depend_on_it(
    data: TemporalData,
):
    plain, halved = values(Reads(), data), values(Reads(scale=0.5), data)
    for key in ("t_sae_smoothness", "t_sae_smoothness_block"):
        assert halved.pop(key) == pytest.approx(plain.pop(key) / 2, rel=1e-5)  # pyright: ignore
    known = {key: value for key, value in plain.items() if value is not None}
    assert {key: halved[key] for key in known} == pytest.approx(known, rel=1e-5, abs=1e-6)
    assert len(known) > 20 and {key for key in halved if halved[key] is not None} == set(known)


def test_without_a_block_the_best_way_of_choosing_stands_for_it(data: TemporalData):
    scores = values(Reads(blocks={}), data)
    ways = [scores[f"prediction_12_{way}"] for way in ("autocorrelation", "ridge", "greedy")]
    assert scores["prediction_12"] == max(ways)  # pyright: ignore
    # three latents are all there are: the block is the dictionary
    assert scores["position_invariance_block"] == scores["position_invariance"]


def test_a_block_of_fast_latents_predicts_nothing_and_choosing_does(data: TemporalData):
    scores = values(Reads((FAST, SLOW, EVEN)), data)
    assert scores["prediction_12"] == pytest.approx(0, abs=0.01)
    assert scores["prediction_12_greedy"] == pytest.approx(STAY**24 / 2, abs=0.03)
    assert scores["autocorrelation"] == pytest.approx(0, abs=0.02)


def test_a_silent_block_has_reasons(data: TemporalData):
    result = measure(Silent(), data)
    assert result.scores["learned_gain"].reason == "the block never fires on the scored documents"
    assert "fires on over one token" in result.scores["position_invariance"].reason
    assert result.scores["prediction_12"].value == pytest.approx(0, abs=0.01)


class Silent(Reads):
    def encode(self, x: Tensor) -> Tensor:
        return 0 * super().encode(x)


def test_smoothing_helps_codes_that_come_and_go(data: TemporalData):
    """A latent that shows the slow switch only where the fast one is on."""

    class Gated(Reads):
        def encode(self, x: Tensor) -> Tensor:
            return (x[..., [SLOW]] * x[..., [FAST]]).float()

    scores = values(Gated((SLOW,)), data)
    plain, smoothed = scores["prediction_12"], scores["prediction_12_smoothed"]
    assert plain is not None and smoothed is not None and smoothed > plain + 0.05


def test_pictures_and_tables(data: TemporalData):
    result = measure(Reads(), data)
    figures = {figure.key: figure for figure in result.figures}
    assert set(figures) == {
        "prediction",
        "autocorrelation",
        "gains",
        "shifts",
        "correlations",
        "specialisations",
        "error_by_position",
        "active_by_position",
        "timeline",
    }
    timeline = figures["timeline"]
    assert timeline.rows == ["0"] and len(timeline.columns) == CONTEXT
    assert timeline.columns[0] == "<0>" and max(timeline.values[0]) == 1
    # all is reconstructed, at every position but the first, which is no token of the text
    x, error = figures["error_by_position"].lines["all latents"]
    assert list(x) == list(range(1, CONTEXT)) and max(error) == pytest.approx(0, abs=1e-6)
    _, active = figures["active_by_position"].lines["all latents"]
    assert active[1] == pytest.approx(2, abs=0.1) and active[0] == pytest.approx(1, abs=0.1)
    assert sum(row[1] for row in result.tables["kinds"].rows) == 3
    real = figures["autocorrelation"].points[0]
    assert real.y[0] == pytest.approx(STAY, abs=0.02) and real.label == "slow block"


def test_text_without_labels_says_so(data: TemporalData):
    score = measure(Reads(), data).scores["slow_k16"]
    assert score.value is None and score.reason == "the text is not known"


def test_lags_that_no_window_holds_are_undefined(data: TemporalData):
    score = measure(Reads(), data).scores["prediction_64"]
    assert score.value is None
    assert score.reason.endswith("64 apart; give a context well above 64")


def test_the_permutation_stays_within_the_scored_documents(data: TemporalData):
    text = data.text
    moved = text.order != torch.arange(len(text.order))
    assert (text.fold.flatten()[moved] == 2).all() and moved.float().mean() > 0.4
    assert text.order.sort().values.tolist() == list(range(len(text.order)))
    # correlation of the codes in that order is that of chance
    codes = codes_of(Reads(), text)
    found = persistence.autocorrelation(codes, (2,), text.order)
    assert abs(found[1][SLOW]) < 0.03


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"context": 1}, "windows of 1 have too few neighbouring tokens of one document"),
        ({"docs": 3}, "the held-out text has 3 documents; give at least 4, two to fit on"),
    ],
)
def test_text_in_which_nothing_is_in_order_is_refused(given: dict[str, int], words: str):
    with pytest.raises(ValueError, match=words):
        prepare(held(n=60, **given))


def test_documents_of_one_token_are_refused():
    whole = held(n=40)
    single = [
        (replace(w, doc=torch.arange(w.doc.numel()).view(w.doc.shape)), state)
        for w, state in whole.batches
    ]
    with pytest.raises(ValueError, match="nothing is in order here; give longer documents"):
        prepare(replace(whole, batches=single))
