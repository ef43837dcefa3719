"""A training step, dense against the sparse fast path, and the selection of the k-th largest
against `topk`.

Run as `python benchmarks/step.py [--quick] [--profile]`. The contenders take turns on the same
batch, so on a noisy machine the ratios of medians hold and the absolute numbers do not.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from saelab.runs import Optim, Run, Source, Spec
from saelab.sae import kernels
from saelab.sae.activations import ReLU
from saelab.sae.kernels import kth_largest
from saelab.sae.module import SAE
from saelab.terms.base import Objective, Term, Variant
from saelab.terms.reconstruct import mse
from saelab.terms.sparsity import l1
from saelab.train.member import Member
from saelab.types import Tokens
from saelab.variants.baselines import batch_topk, topk

SIZES = ((256, 1_024, 1_024), (256, 2_048, 2_048), (768, 16_384, 1_024))  # D, L, B
L0 = 32
STEPS = 1_000_000  # of the run that the timed steps pretend to belong to


def dense_encode(x: Tensor, W_enc: Tensor, b_enc: Tensor, b_dec: Tensor) -> Tensor:
    """The definition."""
    return x @ W_enc + (b_enc - b_dec @ W_enc)


def dense_decode(z: Tensor, weight: Tensor, support: bool) -> Tensor:
    """The definition."""
    del support
    return z @ weight


@contextmanager
def definition() -> Iterator[None]:
    """Every product dense."""
    kept = kernels.encode, kernels.decode
    kernels.encode, kernels.decode = dense_encode, dense_decode
    try:
        yield
    finally:
        kernels.encode, kernels.decode = kept


def relu(d_in: int, n_latents: int, *, l0: float) -> Variant:
    """ReLU with L1 whose bias starts where the L0 is `l0`; at the benchmark's learning rate it
    stays there.
    """
    sae = SAE(d_in, n_latents, ReLU())
    pre = sae.pre(batch(d_in, 1_024)).detach()
    with torch.no_grad():
        sae.b_enc.fill_(-float(kth_largest(pre, round(l0 * len(pre)))))
    return Variant(sae, Objective(Term("mse", mse), Term("sparsity", l1, 1e-3)))


VARIANTS: Mapping[str, Callable[..., Variant]] = {
    "topk": topk,
    "batch_topk": batch_topk,
    "relu": relu,
}


def batch(d_in: int, n: int) -> Tensor:
    """Activations of mean squared norm 1."""
    return torch.randn(n, d_in, generator=torch.Generator().manual_seed(0)) / d_in**0.5


def member(name: str, d_in: int, n_latents: int, l0: float) -> Member:
    """A run that is timed; its learning rate is so small that its sparsity does not move."""
    torch.manual_seed(0)
    run = Run(Spec(name, n_latents), Source(tokens=10**12), Optim(lr=1e-9))
    return Member(0, run, VARIANTS[name](d_in, n_latents, l0=l0), torch.zeros(d_in), 1.0)


def race(contenders: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each contender, which take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, call in contenders.items():
            start = time.perf_counter()
            call()
            if turn > 0:  # the first turn warms up
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def step_ratio(
    name: str, size: tuple[int, int, int], rounds: int, l0: float = L0
) -> tuple[float, float]:
    """Seconds of a dense and of a sparse training step."""
    d_in, n_latents, n = size
    one, data = member(name, d_in, n_latents, l0), Tokens(batch(d_in, n))

    def sparse() -> None:
        one.step(data, 0, STEPS, record=False)

    def dense() -> None:
        with definition():
            sparse()

    taken = race({"dense": dense, "sparse": sparse}, rounds)
    return taken["dense"], taken["sparse"]


def selection_ratio(size: tuple[int, int, int], rounds: int) -> tuple[float, float]:
    """Seconds of `topk` over all entries and of `kth_largest`."""
    _, n_latents, n = size
    pre, k = torch.randn(n, n_latents, generator=torch.Generator().manual_seed(0)), L0 * n
    taken = race(
        {"topk": lambda: pre.flatten().topk(k, sorted=False), "kth": lambda: kth_largest(pre, k)},
        rounds,
    )
    return taken["topk"], taken["kth"]


def profile(name: str, size: tuple[int, int, int]) -> str:
    """Where the time of a sparse step goes."""
    one, data = member(name, size[0], size[1], L0), Tokens(batch(size[0], size[2]))
    one.step(data, 0, STEPS, record=False)
    with torch.profiler.profile() as found:
        for _ in range(3):
            one.step(data, 0, STEPS, record=False)
    return found.key_averages().table(
        sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=45
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="the two small sizes only")
    parser.add_argument("--crossover", action="store_true", help="sweep the L0 at the middle size")
    parser.add_argument(
        "--profile", choices=VARIANTS, help="profile this activation at the last size instead"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    sizes = SIZES[:2] if args.quick else SIZES
    if args.profile:
        print(profile(args.profile, sizes[-1]))
        return
    if args.crossover:
        kernels.CROSSOVER = 1.0
        for share in (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4):
            for size in sizes:
                dense, sparse = step_ratio("relu", size, args.rounds, share * size[1])
                print(
                    (
                        f"non-zero {share:.3f}  D={size[0]} L={size[1]} B={size[2]}  dense / sparse "
                        f"{dense / sparse:.2f}"
                    ),
                    flush=True,
                )
        return
    for size in sizes:
        where = f"D={size[0]} L={size[1]} B={size[2]}"
        for name in VARIANTS:
            dense, sparse = step_ratio(name, size, args.rounds)
            speeds = f"dense {size[2] / dense:,.0f} tokens/s, sparse {size[2] / sparse:,.0f}"
            print(f"{where}  {name}: {speeds}, ratio {dense / sparse:.2f}", flush=True)
        by_topk, by_kth = selection_ratio(size, args.rounds)
        print(
            (
                f"{where}  k-th largest: topk {by_topk * 1e3:.1f} ms, ours {by_kth * 1e3:.1f}, ratio "
                f"{by_topk / by_kth:.2f}"
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
