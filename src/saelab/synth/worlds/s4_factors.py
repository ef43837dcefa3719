"""S4: sequences that share six categorical factors. Two of them agree far more often in training
than in truth.

Every sequence of 16 tokens has a value for each factor, or none (each factor is absent half the
time, else the values of one factor sum to a constant that an SAE folds into its bias). A value is a
direction; its amplitude and 34 nuisance features are new at every token. Factor A copies factor B
with probability `rho`, so under a tight budget one latent for "A and B" is cheaper than two pure
ones. What a sequence shares is what contrastive learning separates from nuisance (Locatello et al.
2020, weakly supervised disentanglement): equal values twice are a paraphrase pair, one shared value
is a factor pair. Null: every token draws values of its own, with the same marginals, and the
sequence shares nothing.

Legend: B sequences | T tokens in a sequence, 16 | F true features, values first | D width.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from saelab.numbers import Kind
from saelab.synth.directions import feature_generator, spread
from saelab.synth.entry import Entry, Setup, check_kind
from saelab.synth.world import Sample, strengths

FACTORS = 6
VALUES = 5  # per factor; as a label, 5 stands for "absent"
LENGTH = 16
A, B = 0, 1  # the factors that are correlated in training
VALUE_SPREAD, NUISANCE_SPREAD = 0.15, 0.3  # standard deviations of amplitudes, whose mean is 1
COSINE = 0.2  # mean over features of the largest |cos| with another


@dataclass(frozen=True)
class Factors:
    """Sequences with factor values. Labels `[B, 6]`: the sequence's values, 0 to 4, 5 = absent."""

    features: Tensor  # [F, D]: values 0-4 of A, of B, ..., then nuisance
    rho: float  # chance that A copies B
    absent: float  # chance that a factor is absent
    p: float  # chance that a nuisance feature is active, at each token
    hold: float  # chance that a token has the sequence's values, else it draws its own
    noise: float  # standard deviation per coordinate

    @property
    def groups(self) -> Mapping[str, range]:
        """Values of A, of B, of the other factors; nuisance."""
        last = FACTORS * VALUES
        values = {
            "a": range(VALUES),
            "b": range(VALUES, 2 * VALUES),
            "other": range(2 * VALUES, last),
        }
        return values | {"nuisance": range(last, len(self.features))}

    @property
    def chance(self) -> float:
        """Probability of each value of a factor."""
        return (1 - self.absent) / VALUES

    def draw(self, n: int, generator: torch.Generator) -> Sample:
        """As many whole sequences as n activations need: x `[n/16, 16, D]`."""
        return self.sequences(self.values(-(-n // LENGTH), generator, rho=self.rho), generator)

    def values(self, n: int, generator: torch.Generator, *, rho: float) -> Tensor:
        """Factor values `[n, 6]` of n sequences; `rho` 0 is the balanced factorial design."""
        values = torch.randint(VALUES, (n, FACTORS), generator=generator)
        values[torch.rand(n, FACTORS, generator=generator) < self.absent] = VALUES
        copied = torch.rand(n, generator=generator) < rho
        values[:, A] = torch.where(copied, values[:, B], values[:, A])
        return values

    def sequences(self, values: Tensor, generator: torch.Generator) -> Sample:
        """Sequences with factor values `[B, 6]`; equal values twice are a paraphrase pair, in all
        but nuisance equal.
        """
        return self._tokens(values, self._held(values, generator), generator)

    def _held(self, values: Tensor, generator: torch.Generator) -> Tensor:
        """Factor values of tokens `[B, T, 6]`: those of their sequence `[B, 6]`, or their own."""
        held = values.unsqueeze(1).expand(-1, LENGTH, -1)
        if self.hold < 1:
            redrawn = self.values(len(values) * LENGTH, generator, rho=self.rho).view(held.shape)
            held = torch.where(
                torch.rand(*held.shape[:2], 1, generator=generator) < self.hold, held, redrawn
            )
        return held

    def balanced(self, n: int, generator: torch.Generator) -> Sample:
        """n sequences for evaluation: A independent of B, values held by all tokens (in the null as
        well).
        """
        values = self.values(n, generator, rho=0)
        return self._tokens(values, values.unsqueeze(1).expand(-1, LENGTH, -1), generator)

    def partners(self, values: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Factor values `[B, 6]` of sequences that share one factor with those of `values [B, 6]`,
        and which factor it is `[B]`.

        The shared factor is one that is present; where none is, what is shared is that one is
        absent. The others are drawn anew given the shared one.
        """
        rows = torch.arange(len(values))
        present = values < VALUES
        present |= ~present.any(1, keepdim=True)
        shared = present.float().multinomial(1, generator=generator).squeeze(1)
        drawn = self.values(len(values), generator, rho=0)
        drawn[rows, shared] = values[rows, shared]
        copied = torch.rand(len(values), generator=generator) < self.rho
        # P(B | A = a) is P(A | B = a): the shared one of the two is the one copied
        source = torch.where(shared == A, A, B)
        drawn[copied, (A + B - source)[copied]] = drawn[copied, source[copied]]
        return drawn, shared

    @property
    def pair_kinds(self) -> tuple[str, ...]:
        """A factor pair of each factor, and the paraphrase pair."""
        return (*self.label_names, "paraphrase")

    @property
    def label_names(self) -> tuple[str, ...]:
        """The factors."""
        return tuple(f"factor {i}" for i in range(FACTORS))

    def pairs(self, n: int, generator: torch.Generator) -> tuple[Sample, Sample, Tensor]:
        """Paraphrase pairs and factor pairs in turn, at least two, about n tokens in all; labels
        are the factor values of the sequences `[B, 6]`.
        """
        values = self.values(max(2, n // (2 * LENGTH)), generator, rho=self.rho)
        partners, shared = self.partners(values, generator)
        paraphrased = torch.arange(len(values)) % 2 == 0
        partners[paraphrased], shared[paraphrased] = values[paraphrased], FACTORS
        return self.sequences(values, generator), self.sequences(partners, generator), shared

    def labelled(self, n: int, generator: torch.Generator) -> Sample:
        """n tokens `[N, D]`, each labelled with the factor values that it shows itself `[N, 6]`, 5
        = absent.
        """
        values = self.values(-(-n // LENGTH), generator, rho=self.rho)
        held = self._held(values, generator)
        flat = self._tokens(values, held, generator).flat
        return Sample(flat.x[:n], flat.codes[:n], held.flatten(0, 1)[:n])

    def _tokens(self, values: Tensor, held: Tensor, generator: torch.Generator) -> Sample:
        """Activations of tokens with factor values `held [B, T, 6]`, labelled with `values [B,
        6]`.
        """
        codes = torch.zeros(*held.shape[:2], len(self.features))  # [B, T, F]
        amplitude = (1 + VALUE_SPREAD * torch.randn(held.shape, generator=generator)).abs()
        first = torch.arange(FACTORS) * VALUES
        codes.scatter_(-1, first + held.clamp_max(VALUES - 1), amplitude * (held < VALUES))
        nuisance = codes[..., FACTORS * VALUES :]
        active = torch.rand(nuisance.shape, generator=generator) < self.p
        nuisance.copy_(strengths(active, NUISANCE_SPREAD, generator))
        x = codes @ self.features
        return Sample(x + self.noise * torch.randn(x.shape, generator=generator), codes, values)


def build(
    seed: int,
    *,
    d: float = 48,
    nuisance: float = 34,
    rho: float = 0.8,
    absent: float = 0.5,
    p: float = 0.1,
    hold: float = 1.0,
    noise: float = 0.05,
) -> Factors:
    """The world: `d` dimensions, `nuisance` features besides the 30 values, the chances and the
    noise of `Factors`.

    Raises `ValueError` for a number outside its range, and for too few dimensions.
    """
    check_kind(Kind(1, 4_096), d=d)
    check_kind(Kind(0, 4_096), nuisance=nuisance)
    check_kind(Kind(0, 1), rho=rho, p=p, hold=hold)
    check_kind(Kind(0, 0.9), absent=absent)
    check_kind(Kind(0, 10), noise=noise)
    n_features = FACTORS * VALUES + round(nuisance)
    features = spread(n_features, round(d), feature_generator("s4", seed), target=COSINE)
    return Factors(features, rho=rho, absent=absent, p=p, hold=hold, noise=noise)


S4 = Entry(
    tests=(
        "Can a variant keep apart two factors that mostly agree in training, and every value "
        "from nuisance?"
    ),
    build=build,
    setup=Setup(n_latents=80, k=4.5, steps=6_000, batch=512, lr=3e-3, inner=40),
    headline=("mig", "mig_ab", "composites", "explained_variance"),
    head="s4",
)
ENTRIES = {
    "s4": S4,
    "s4_null": replace(
        S4,
        tests=(
            "The null of s4: tokens of a sequence share nothing, so contrast within and between "
            "sequences must not help."
        ),
        settings={"hold": 0},
    ),
}
