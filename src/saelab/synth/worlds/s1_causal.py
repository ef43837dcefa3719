"""Worlds in which what is large is not what matters: a frozen network reads part of the activation,
an SAE sees all of it.

An SAE that only reconstructs spends its latents on variance; one that knows the effects on the
model behind it need not. The idea is that of end-to-end dictionaries (Braun et al. 2024, sections 1
and 3): features by their effect on the output.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import exp, log
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.functional import relu

from saelab.synth.directions import feature_generator, orthonormal, repelled
from saelab.synth.entry import Entry, Setup
from saelab.synth.world import Sample, strengths

WINDOW = 16  # positions of a window; they are independent, so that order carries nothing
SPREAD = 0.2  # standard deviation of an amplitude over its mean
HIDDEN, VOCAB = 128, 50  # of the network behind the world
# amplitude over that of a causal feature: single precision still resolves the small ones
LARGEST = 1_000.0
CALIBRATION_ROWS = 20_000  # activations over which the network's mean entropy is set
# between which the output weights are scaled, whatever the unit of the activations
GAINS = (1e-6, 1e6)


@dataclass(frozen=True)
class Causal:
    """Causal and inert features in orthogonal subspaces; the network sees the causal one only.

    A feature is active with probability p and amplitude |N(1, .2)| times its `amplitudes`. With
    probability `copy` an inert feature takes its support from the causal feature of the same
    number. `logits = U relu(V x)`.
    """

    features: Tensor  # [F, D], the causal half first
    amplitudes: Tensor  # [F]
    V: Tensor  # [HIDDEN, D]
    U: Tensor  # [VOCAB, HIDDEN]
    p: float
    copy: float
    noise: float  # standard deviation in each dimension

    @property
    def groups(self) -> Mapping[str, range]:
        """Causal features and inert ones."""
        half = len(self.features) // 2
        return {"causal": range(half), "inert": range(half, 2 * half)}

    @property
    def causal(self) -> range:
        """Features that an SAE should find."""
        return self.groups["causal"]

    @property
    def inert(self) -> range:
        """Features that the network never reads."""
        return self.groups["inert"]

    def draw(self, n: int, generator: torch.Generator) -> Sample:
        """Windows of 16 independent activations, `x [n/16, 16, D]`. Raises `ValueError` where n is
        no multiple of 16.
        """
        active = torch.rand(n, len(self.features), generator=generator) < self.p
        if self.copy > 0:
            half = len(self.causal)
            copied = torch.rand(n, half, generator=generator) < self.copy
            active[:, half:] = torch.where(copied, active[:, :half], active[:, half:])
        codes = strengths(active, SPREAD, generator) * self.amplitudes
        return _windows(codes, self.features, self.noise, generator)

    def logits(self, x: Tensor) -> Tensor:
        """Activations `[..., D]` -> logits `[..., VOCAB]`."""
        return relu(x @ self.V.T) @ self.U.T

    def ablated(self, x: Tensor, mean: Tensor) -> Tensor:
        """What stands for "nothing is known of x" `[N, D]`: the mean activation."""
        return mean.expand_as(x)


@dataclass(frozen=True)
class Gated:
    """Two banks of features in orthogonal subspaces, and a context, the sign of one more direction,
    that says which matters.

    The network reads bank A where the context is positive and bank B where it is negative, through
    the same weights, so no feature is inert everywhere. The context's two signs are two features
    with opposite directions, always one of them active.
    """

    features: Tensor  # [F, D], bank A, bank B, context + and -
    amplitudes: Tensor  # [F - 2], of the banks
    V: Tensor  # [2, HIDDEN, D], for bank A and B
    U: Tensor  # [VOCAB, HIDDEN]
    p: float
    context: float  # amplitude of the context
    noise: float  # standard deviation in each dimension

    @property
    def groups(self) -> Mapping[str, range]:
        """The two banks and the two signs of the context."""
        half = len(self.amplitudes) // 2
        return {
            "A": range(half),
            "B": range(half, 2 * half),
            "context": range(2 * half, 2 * half + 2),
        }

    @property
    def causal(self) -> range:
        """Features that an SAE should find: both banks, for each is read in one of the contexts."""
        return range(len(self.amplitudes))

    @property
    def inert(self) -> range:
        """None: there is no feature that the network never reads."""
        return range(0)

    def draw(self, n: int, generator: torch.Generator) -> Sample:
        """Windows of 16 independent activations, `x [n/16, 16, D]`. Raises `ValueError` where n is
        no multiple of 16.
        """
        active = torch.rand(n, len(self.amplitudes), generator=generator) < self.p
        banks = strengths(active, SPREAD, generator) * self.amplitudes
        positive = torch.rand(n, 1, generator=generator) < 0.5
        codes = torch.cat([banks, self.context * positive, self.context * ~positive], 1)
        return _windows(codes, self.features, self.noise, generator)

    def logits(self, x: Tensor) -> Tensor:
        """Activations `[..., D]` -> logits `[..., VOCAB]`; the switch between the banks has no
        gradient.
        """
        positive = x @ self.features[-2] > 0  # [...]
        return (
            relu(torch.where(positive.unsqueeze(-1), x @ self.V[0].T, x @ self.V[1].T)) @ self.U.T
        )

    def ablated(self, x: Tensor, mean: Tensor) -> Tensor:
        """What stands for "nothing is known of x" `[N, D]`: the mean, with x's own context kept.

        An SAE then earns nothing by knowing the context, which any SAE does.
        """
        direction = self.features[-2]
        return mean + ((x - mean) @ direction).unsqueeze(-1) * direction


Network = TypeVar("Network", Causal, Gated)


def _windows(codes: Tensor, features: Tensor, noise: float, generator: torch.Generator) -> Sample:
    """Activations of codes `[n, F]`, in windows."""
    n = len(codes)
    if n % WINDOW:
        raise ValueError(
            f"{n} activations asked for; these worlds give windows of {WINDOW}, so ask for a "
            f"multiple of {WINDOW}"
        )
    x = codes @ features + noise * torch.randn(n, features.shape[1], generator=generator)
    return Sample(x.view(-1, WINDOW, x.shape[1]), codes.view(-1, WINDOW, codes.shape[1]))


def build_causal(
    seed: int,
    *,
    features: float = 64,
    width: float = 32,
    p: float = 0.06,
    ratio: float = 3.0,
    copy: float = 0.0,
    noise: float = 0.02,
    entropy: float = 2.0,
) -> Causal:
    """`features` causal and as many inert features, each half in a subspace of `width` dimensions.

    `ratio`: inert over causal amplitude. `copy`: how often an inert feature takes a causal one's
    support. `entropy`: mean over activations of the network's prediction, nats. Raises `ValueError`
    for numbers that make no such world.
    """
    _check("ratio", ratio, 0 < ratio <= LARGEST, f"(0, {LARGEST:g}]")
    _check("copy", copy, 0 <= copy <= 1, "[0, 1]")
    n, d = _check_common(features, width, p=p, noise=noise, entropy=entropy)
    generator = feature_generator("s1", seed)
    basis = orthonormal(2 * d, generator)  # rows: the causal subspace, then the inert one
    directions = torch.cat([repelled(n, d, generator) @ half for half in basis.split(d)])
    amplitudes = torch.tensor([1.0, ratio]).repeat_interleave(n)
    V = torch.randn(HIDDEN, d, generator=generator) / d**0.5 @ basis[:d]
    U = torch.randn(VOCAB, HIDDEN, generator=generator) / HIDDEN**0.5
    process = Causal(directions, amplitudes, V, U, p, copy, noise)
    return _calibrated(process, entropy, generator)


def build_gated(
    seed: int,
    *,
    features: float = 64,
    width: float = 32,
    p: float = 0.06,
    context: float = 2.0,
    noise: float = 0.02,
    entropy: float = 2.0,
) -> Gated:
    """`features` in each of two banks of `width` dimensions, and a context of amplitude `context`
    that selects the bank.

    `entropy` as in `build_causal`. Raises `ValueError` for numbers that make no such world.
    """
    _check("context", context, 0 < context <= LARGEST, f"(0, {LARGEST:g}]")
    n, d = _check_common(features, width, p=p, noise=noise, entropy=entropy)
    generator = feature_generator("s1", seed)
    basis = orthonormal(2 * d + 1, generator)
    banks = basis[:-1].split(d)
    directions = torch.cat(
        [*(repelled(n, d, generator) @ bank for bank in banks), basis[-1:], -basis[-1:]]
    )
    amplitudes = torch.ones(2 * n)
    weights = torch.randn(HIDDEN, d, generator=generator) / d**0.5
    V = torch.stack([weights @ bank for bank in banks])
    U = torch.randn(VOCAB, HIDDEN, generator=generator) / HIDDEN**0.5
    process = Gated(directions, amplitudes, V, U, p, context, noise)
    return _calibrated(process, entropy, generator)


def _check(name: str, value: float, allowed: bool, limits: str) -> None:
    """Raise `ValueError` for a number outside its limits; NaN is never allowed."""
    if not allowed:
        raise ValueError(f"{name} is {value:g}; it must lie in {limits}")


def _check_common(
    features: float, width: float, *, p: float, noise: float, entropy: float
) -> tuple[int, int]:
    """The two counts, rounded, once all numbers that both worlds share are known to make sense."""
    _check("features", features, 1 <= features <= 10_000, "[1, 10000]")
    _check("width", width, 2 <= width <= 10_000, "[2, 10000]")
    _check("p", p, 0 < p < 1, "(0, 1)")
    _check("noise", noise, 0 <= noise <= LARGEST, f"[0, {LARGEST:g}]")
    _check(
        "entropy", entropy, 0.01 <= entropy <= 0.99 * log(VOCAB), f"[0.01, {0.99 * log(VOCAB):.2f}]"
    )
    return round(features), round(width)


@torch.no_grad()
def _calibrated(process: Network, entropy: float, generator: torch.Generator) -> Network:
    """The process with output weights scaled such that the mean entropy of the predictions is as
    asked, by bisection of the factor's logarithm.

    Predictions grow sharper with it, so that the entropy falls from log(VOCAB) to 0.
    """
    logits = process.logits(process.draw(CALIBRATION_ROWS, generator).flat.x)
    low, high = (log(gain) for gain in GAINS)
    for _ in range(30):
        middle = (low + high) / 2
        log_p = torch.log_softmax(logits * exp(middle), -1)
        flat = float(-(log_p.exp() * log_p).sum(-1).mean()) > entropy
        low, high = (middle, high) if flat else (low, middle)
    return replace(process, U=process.U * exp(high))


S1 = Entry(
    tests=(
        "Does an SAE find the weak features that the model reads, beside strong ones that it "
        "ignores?"
    ),
    build=build_causal,
    setup=Setup(
        n_latents=64, k=4, steps=2_000, batch=1_024, lr=1e-2, decay=0.33, anneal=3, levels=4
    ),
    headline=("causal_mcc", "recovered_share", "kl_recovered", "explained_variance"),
    head="s1",
)
ENTRIES = {
    "s1": S1,
    "s1b": replace(
        S1,
        tests=(
            "The same where ignored features fire together with the read ones, so that "
            "correlation cannot tell them apart."
        ),
        settings={"copy": 0.8},
    ),
    "s1d": replace(
        S1,
        tests=(
            "Does an SAE keep what the model reads where the context decides which features those "
            "are?"
        ),
        build=build_gated,
        setup=replace(S1.setup, n_latents=130, k=5, steps=1_200),
        headline=("kl_recovered", "causal_mcc", "recovered_share", "explained_variance"),
    ),
}
