"""S5: a task factor T and a spurious factor s that comes with it.

Both are active in 30 % of the samples, with correlation .9, and k is one below the mean number of
active features: an SAE that minimises squared error then spends one latent on the mixture of the
two (the exact solution for two features is in Chanin and Garriga-Alonso, "Sparse but Wrong",
2508.16560), and neither factor can be removed without the other. `s5b` spreads s over six
directions, so that three bank latents cannot hold all of it. `s5_null` has correlation 0 at the
same marginals: there is nothing to mix, the labels of s are as true as before. Read `spurious_cos`
there: one latent holds s, so that a bank of the three best is filled up with near ties, which can
take the task's latent. (The null of a variant that is given labels is another one: random labels of
s on `s5`.)

Labels `[N, 2]` are (T, s), each 0 or 1; -1 is unknown. There is no order.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from saelab.numbers import Kind
from saelab.synth.directions import feature_generator, repelled, unit_rows
from saelab.synth.entry import Entry, Setup, check_kind
from saelab.synth.world import Sample, strengths

Mode = Literal["natural", "decorrelated", "balanced", "concordant"]

SPREAD = 0.2  # of amplitudes |N(1, SPREAD)|
TASK_LABELLED = 0.1  # share of a labelled sub-batch in which T is known


@dataclass(frozen=True)
class SpuriousFactor:
    """One task direction, `n_spurious` directions of s, and background features that are active
    independently.
    """

    features: Tensor  # [F, D] the task, the spurious directions, the background
    n_spurious: int
    chance: float  # that a spurious direction is active where s = 1
    frequency: float  # of T = 1 and of s = 1
    correlation: float  # of T and s in natural samples
    p: float  # that a background feature is active
    noise: float  # standard deviation per coordinate

    @property
    def groups(self) -> Mapping[str, range]:
        """The task feature, the spurious features, the background."""
        first = 1 + self.n_spurious
        return {
            "task": range(1),
            "spurious": range(1, first),
            "background": range(first, len(self.features)),
        }

    def cells(self, n: int, generator: torch.Generator, mode: Mode) -> Tensor:
        """Labels (T, s) of n samples, int64 `[N, 2]`.

        natural: marginals and correlation of the world; decorrelated: the same marginals,
        independent; balanced: the four cells in turn, a quarter each; concordant: T = s, half of
        each.
        """
        if mode in ("balanced", "concordant"):
            turn = torch.arange(n)
            cell = turn % 4 if mode == "balanced" else 3 * (turn % 2)
        elif mode in ("natural", "decorrelated"):
            m = self.frequency
            both = m * m + (self.correlation if mode == "natural" else 0) * m * (1 - m)
            chances = torch.tensor([1 - 2 * m + both, m - both, m - both, both]).clamp_min(0)
            cell = torch.multinomial(chances, n, replacement=True, generator=generator)
        else:
            raise ValueError(
                f"mode is {mode!r}; it must be natural, decorrelated, balanced or concordant"
            )
        return torch.stack([cell // 2, cell % 2], 1)

    def draw(self, n: int, generator: torch.Generator, *, mode: Mode = "natural") -> Sample:
        """`x [N, D]`, `codes [N, F]` and labels `[N, 2]`; `mode` says how T and s go together (see
        `cells`).
        """
        labels = self.cells(n, generator, mode)
        task, spurious = labels.unbind(1)
        chances = torch.full((n, len(self.features)), self.p)
        chances[:, 0] = task
        chances[:, 1 : 1 + self.n_spurious] = self.chance * spurious.unsqueeze(1)
        active = torch.rand(chances.shape, generator=generator) < chances
        codes = strengths(active, SPREAD, generator)
        noise = self.noise * torch.randn(n, self.features.shape[1], generator=generator)
        return Sample(codes @ self.features + noise, codes, labels)

    @property
    def label_names(self) -> tuple[str, ...]:
        """The two factors."""
        return "task", "spurious"

    def labelled(self, n: int, generator: torch.Generator) -> Sample:
        """A sub-batch for supervision: cell-balanced, s known everywhere, T in the first tenth only
        (else -1).
        """
        sample = self.draw(n, generator, mode="balanced")
        labels = sample.labels
        assert labels is not None
        labels[round(TASK_LABELLED * n) :, 0] = -1
        return Sample(sample.x, sample.codes, labels)


def build(
    seed: int,
    *,
    d: float = 32,
    n_features: float = 64,
    n_spurious: float = 1,
    chance: float = 1.0,
    frequency: float = 0.3,
    correlation: float = 0.9,
    cosine: float = 0.3,
    p: float = 0.05,
    noise: float = 0.02,
) -> SpuriousFactor:
    """The world of a seed. `cosine`: of the task direction and the first spurious one; the others
    are repelled from all.

    Raises `ValueError` for numbers that make no such world.
    """
    d, n_features, n_spurious = round(d), round(n_features), round(n_spurious)
    check_kind(Kind(2), d=d)
    check_kind(Kind(1), n_spurious=n_spurious)
    check_kind(Kind(1 + n_spurious), n_features=n_features)
    check_kind(Kind(0, 1), chance=chance, correlation=correlation, p=p)
    # outside, the probes of the evaluation see too few of a class
    check_kind(Kind(0.05, 0.95), frequency=frequency)
    check_kind(Kind(-0.95, 0.95), cosine=cosine)
    check_kind(Kind(0), noise=noise)
    generator = feature_generator("s5", seed)
    task, other = unit_rows(torch.randn(2, d, generator=generator))
    other = unit_rows(other - (other @ task) * task)
    spurious = cosine * task + (1 - cosine**2) ** 0.5 * other
    named = torch.stack([task, spurious])
    rest = repelled(n_features - 2, d, generator, steps=200, fixed=named)
    return SpuriousFactor(
        torch.cat([named, rest]), n_spurious, chance, frequency, correlation, p, noise
    )


S5 = Entry(
    tests=(
        "A task factor comes with a spurious one: can the spurious factor be removed and the "
        "task kept?"
    ),
    build=build,
    # k is E[L0] - 1
    setup=Setup(
        n_latents=48, k=2.70, steps=1000, batch=1024, lr=5e-3, decay=0.33, anneal=3, levels=4
    ),
    headline=(
        "scr_threshold",
        "leak_linear",
        "task_accuracy",
        "spurious_cos",
        "explained_variance",
    ),
    head="s5",
)
ENTRIES = {
    "s5": S5,
    "s5b": replace(
        S5,
        tests=(
            "The spurious factor is spread over six directions: can it be kept out of the latents "
            "beyond a bank of three?"
        ),
        setup=replace(S5.setup, k=3.23),
        settings={"n_spurious": 6, "chance": 0.6},
    ),
    "s5_null": replace(
        S5,
        tests=(
            "The null of s5: the spurious factor is independent of the task, so no latent should "
            "mix them."
        ),
        settings={"correlation": 0.0},
    ),
}
