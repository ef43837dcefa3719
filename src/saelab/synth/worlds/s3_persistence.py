"""S3: half of the true features are hidden states that persist over a sequence, the other half are
drawn anew everywhere.

A hidden state h_f(t) is on with probability p and keeps its value from one position to the next
with probability `stay`, else it is redrawn, so its correlation at lag d is stay^d. A state that is
on shows with probability `emission`:

    x_t = sum_f h_f(t) e_f(t) (1 + .1 n_f(t)) d_f + signals(t) + noise n(t)

with n ~ N(0, 1) and e ~ Bernoulli(emission). `signals` are two circles in the position (once and
four times a sequence): they too change slowly, but say nothing about the content. At a single
position slow and fast features are indistinguishable. Idea: switching states with noisy emissions
as ground truth for temporal objectives (Hidden Markov models; nonlinear ICA from nonstationarity,
Halva & Hyvarinen 2020).

In `s3c` the dictionary has fewer latents than there are features and no features of the position,
so a method must choose what to keep, and no sorting afterwards can bring back what was not learned.
In the nulls the tokens are permuted within the corpus, position signals included: the same
activations in an order that means nothing.

Training reads pairs of positions of distinct sequences; the state at the later position is drawn
from the chain's exact transition, so no sequence is simulated. Legend: F true features | S
sequences | T positions | P position signals | D width.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from saelab.synth.directions import feature_generator, orthonormal
from saelab.synth.entry import Entry, Setup
from saelab.synth.world import Sample

D_IN = 64
POSITIONS = 64
MAX_LAG = 15
SLOW, FAST = 20, 20
SPREAD = 0.1  # standard deviation of a feature's strength around 1


@dataclass(frozen=True)
class Persistence:
    """The world: hidden states, their emissions, and signals of the position."""

    features: Tensor  # [F, D] orthonormal, slow ones first
    # [P, D] orthonormal to the features: cosine and sine of each circle; P is 0 without position
    # signals
    planes: Tensor
    signals: Tensor  # [T, P] position signals
    groups: Mapping[str, range]
    chance: Tensor  # [F] that a state is on
    stay: Tensor  # [F] chance that a state is kept from one position to the next
    emission: float  # chance that a state that is on shows
    noise: float  # standard deviation, each of the D dimensions
    permuted: bool  # tokens are in random order: what stands at a position came from any other

    def draw(self, n: int, generator: torch.Generator) -> Sample:
        """n/2 pairs of positions (t, t + lag) from n/2 sequences, lag uniform on 1..15 and t
        wherever that fits.

        `x [n/2, 2, D]`, `codes` and hidden states (`labels`) `[n/2, 2, F]`, `pos [n/2, 2]`.
        Permuted, both members are independent tokens with the marginal distribution of the ordered
        world's. Raises `ValueError` for odd n.
        """
        if n < 2 or n % 2:
            raise ValueError(f"n is {n}; this world gives pairs: n must be even and at least 2")
        lag = torch.randint(1, MAX_LAG + 1, (n // 2,), generator=generator)
        first = (torch.rand(n // 2, generator=generator) * (POSITIONS - lag)).long()
        pos = torch.stack([first, first + lag], 1)  # [n/2, 2]
        start = self._fresh(n // 2, generator)
        kept = torch.rand(start.shape, generator=generator) < self.stay ** lag.unsqueeze(1)
        # [n/2, 2, F]
        hidden = torch.stack([start, torch.where(kept, start, self._fresh(n // 2, generator))], 1)
        origin = pos
        if self.permuted:
            origin = torch.multinomial(
                pair_positions(), n, replacement=True, generator=generator
            ).view(-1, 2)
        return self._emit(hidden, origin, pos, generator)

    def sequences(self, n: int, generator: torch.Generator) -> Sample:
        """n whole sequences: `x [n, T, D]`, `codes` and hidden states (`labels`) `[n, T, F]`,
        positions 0, 1, ..., T - 1.
        """
        states = [self._fresh(n, generator)]
        for _ in range(POSITIONS - 1):
            kept = torch.rand(states[-1].shape, generator=generator) < self.stay
            states.append(torch.where(kept, states[-1], self._fresh(n, generator)))
        pos = torch.arange(POSITIONS).expand(n, POSITIONS)
        origin = torch.randint(POSITIONS, pos.shape, generator=generator) if self.permuted else pos
        return self._emit(torch.stack(states, 1), origin, pos, generator)

    def _fresh(self, n: int, generator: torch.Generator) -> Tensor:
        """Hidden states `[n, F]` with no past."""
        return torch.rand(n, len(self.features), generator=generator) < self.chance

    def _emit(
        self, hidden: Tensor, origin: Tensor, pos: Tensor, generator: torch.Generator
    ) -> Sample:
        """Activations of hidden states `[S, T, F]` whose position signals are those of `origin [S,
        T]`.
        """
        shown = hidden & (torch.rand(hidden.shape, generator=generator) < self.emission)
        codes = torch.zeros(hidden.shape)
        strength = 1 + SPREAD * torch.randn(int(shown.sum()), generator=generator)
        codes[shown] = strength.clamp_min(torch.finfo(codes.dtype).tiny)
        x = self.noise * torch.randn(*hidden.shape[:2], D_IN, generator=generator)
        x += codes @ self.features + self.signals[origin] @ self.planes
        return Sample(x, codes, hidden.float(), pos)


@cache
def pair_positions() -> Tensor:
    """How often a member of a pair stands at each position `[T]`: lag uniform, first position
    uniform where it fits.
    """
    chances = torch.zeros(POSITIONS)
    for lag in range(1, MAX_LAG + 1):
        chances[: POSITIONS - lag] += 1 / (POSITIONS - lag)
        chances[lag:] += 1 / (POSITIONS - lag)
    return chances / chances.sum()


def build(
    seed: int,
    *,
    p_slow: float = 0.15,
    p_fast: float = 0.15,
    stay: float = 0.95,
    emission: float = 0.625,
    noise: float = 0.05,
    position: float = 0.7,
    permuted: float = 0,
) -> Persistence:
    """20 slow and 20 fast features and, where `position` > 0, four signals of the position of that
    amplitude.

    `p_slow`, `p_fast`: chance that a state is on, in (0, 1). `stay` in [0, 1], `emission` in (0,
    1], `noise` >= 0, `permuted` 0 or 1. Raises `ValueError` for anything else.
    """
    for name, value, allowed, fits in (
        ("p_slow", p_slow, "above 0 and below 1", 0 < p_slow < 1),
        ("p_fast", p_fast, "above 0 and below 1", 0 < p_fast < 1),
        ("stay", stay, "from 0 to 1", 0 <= stay <= 1),
        ("emission", emission, "above 0 and at most 1", 0 < emission <= 1),
        ("noise", noise, "at least 0 and finite", 0 <= noise < math.inf),
        ("position", position, "at least 0 and finite", 0 <= position < math.inf),
        ("permuted", permuted, "0 or 1", permuted in (0, 1)),
    ):
        if not fits:
            raise ValueError(f"{name} is {value}; it must be {allowed}")
    basis = orthonormal(D_IN, feature_generator("s3", seed))
    angles = 2 * math.pi * torch.arange(POSITIONS) / POSITIONS
    signals = position * torch.stack(
        [angles.cos(), angles.sin(), (4 * angles).cos(), (4 * angles).sin()], 1
    )
    n_signals = signals.shape[1] if position > 0 else 0
    n_features = SLOW + FAST
    return Persistence(
        features=basis[:n_features],
        planes=basis[n_features : n_features + n_signals],
        signals=signals[:, :n_signals],
        groups={"slow": range(SLOW), "fast": range(SLOW, n_features)},
        chance=torch.tensor([p_slow] * SLOW + [p_fast] * FAST),
        stay=torch.tensor([0.0 if permuted else stay] * SLOW + [0.0] * FAST),
        emission=emission,
        noise=noise,
        permuted=permuted == 1,
    )


S3 = Entry(
    tests=(
        "Features that persist over a sequence go to the slow block, fast ones and the "
        "position elsewhere; sorting any dictionary afterwards does it too, so a win must be "
        "read beside purity_sorted."
    ),
    build=build,
    setup=Setup(48, k=8, steps=2000, batch=512, lr=3e-3, anneal=3.0, inner=SLOW),
    headline=("purity", "purity_sorted", "slow_recall", "explained_variance"),
    head="s3",
)
S3C = replace(
    S3,
    tests=(
        "With 24 latents for 40 features, persistent features are kept and fast ones given "
        "up; no sorting afterwards can bring back what was not learned."
    ),
    setup=replace(S3.setup, n_latents=24, k=2.25),
    headline=("slow_recall", "fast_recall", "purity", "explained_variance"),
    head="s3c",
    settings={"position": 0},
)
ENTRIES = {
    "s3": S3,
    "s3_hard": replace(
        S3,
        tests=(
            "The same where slow features are three times rarer than fast ones, so variance "
            "speaks against them."
        ),
        setup=replace(S3.setup, k=6.5),
        settings={"p_slow": 0.05},
    ),
    "s3_null": replace(
        S3,
        tests="s3 with its tokens permuted: nothing persists, so no method may gain.",
        settings={"permuted": 1},
    ),
    "s3c": S3C,
    "s3c_hard": replace(
        S3C,
        tests=(
            "s3c where a slow feature has a third of a fast one's variance: what keeping them "
            "costs in reconstruction."
        ),
        setup=replace(S3C.setup, k=1.5),
        settings={"position": 0, "p_slow": 0.05},
    ),
    "s3c_null": replace(
        S3C,
        tests="s3c with its tokens permuted: which features are kept is chance, for every method.",
        settings={"position": 0, "permuted": 1},
    ),
}
