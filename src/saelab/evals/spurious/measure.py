"""Spurious correlation: can the spurious factor be taken out of a dictionary, and does the task
factor stay?

The bank S is the dictionary's block "bank", else its three latents with the highest attribution to
s; R are the others. Removal is spurious correlation removal (SCR; Karvonen et al. 2025, SAEBench,
2503.09532, section 3.7): a probe of the task T that was trained where T = s is applied to x with S
ablated to its mean, the reconstruction error kept, on four equal cells of (T, s); 0 is the accuracy
without ablation, 1 that of a probe trained on the four cells. With zero ablation every T = 1 sample
of a mixed latent lands on the probe's threshold, so that the score says nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from saelab.evals.common.world import process_of, undefined, world_of, world_score
from saelab.evals.result import Result
from saelab.evals.spurious.probes import (
    LinearProbe,
    accuracy,
    best_accuracy,
    leace,
    linear_probe,
    mlp_probe,
)
from saelab.ground.held_out import HeldOut
from saelab.synth.directions import unit_rows
from saelab.synth.worlds.s5_spurious import Mode, SpuriousFactor
from saelab.types import Dictionary, Score, structure_of

ROWS = 8_000  # activations of each sample
# for the biased probe: which of the two directions it leans to, by chance, decides what a mixture
# scores
BIASED_ROWS = 64_000
BANK = 3  # latents, where the dictionary names none
MIN_GAP = 0.02  # between the clean and the biased probe; below, a share of it says nothing
NO_REST = "every latent is in the bank"
OF_THE_REST = ("leak_linear", "leak_mlp", "task_accuracy", "worst_group")


@dataclass(frozen=True)
class TwoLabels:
    """Activations with both labels."""

    x: Tensor  # [N, D]
    task: Tensor  # [N] 0 or 1
    spurious: Tensor  # [N] 0 or 1


@dataclass(frozen=True)
class SpuriousData:
    """Held-out samples of a world and what probes on x make of them: the same for every SAE."""

    train: TwoLabels  # four equal cells
    test: TwoLabels  # four equal cells
    natural: TwoLabels  # T and s as correlated as in training
    biased: LinearProbe  # of T on x, from cells with T = s
    # on test, of the probe of T trained on four cells: at 0, at the best threshold
    clean_accuracy: tuple[float, float]
    biased_accuracy: tuple[float, float]  # the same of `biased`
    spurious_direction: Tensor  # [D] gradient of the probe of s
    features: Tensor  # [2, D] the task's true direction, the first spurious one
    # the ceiling of linear removal, by the same measures
    leace: Mapping[str, float | None] = field(default_factory=dict)


def prepare(held: HeldOut) -> SpuriousData:
    """Samples and probes. Raises `TypeError` for a world without a spurious factor."""
    world = world_of(held)
    lack = "has no spurious factor; this evaluation reads s5, s5b and s5_null"
    process = process_of(held, SpuriousFactor, lack)

    def sample(name: str, mode: Mode, rows: int = ROWS) -> TwoLabels:
        drawn = process.draw(rows, world.generator(f"spurious {name}"), mode=mode)
        assert drawn.labels is not None
        return TwoLabels(drawn.x, *drawn.labels.unbind(1))

    train, test = sample("train", "balanced"), sample("test", "balanced")
    concordant = sample("biased", "concordant", BIASED_ROWS)
    clean, biased = linear_probe(train.x, train.task), linear_probe(concordant.x, concordant.task)
    data = SpuriousData(
        train,
        test,
        sample("natural", "natural"),
        biased,
        _accuracies(clean(test.x), test.task),
        _accuracies(biased(test.x), test.task),
        linear_probe(train.x, train.spurious).direction.to(train.x.dtype),
        process.features[:2],
    )
    return replace(data, leace=_leace_row(data))


@torch.no_grad()
def measure(dictionary: Dictionary, data: SpuriousData) -> Result:
    """Seven numbers of one dictionary; `METRICS` says what each means.

    Gate on `scr_threshold`: in `scr` a mere shift counts. A low leak alone is no success: R may
    have lost T as well. Probes of the leaks and of `task_accuracy` are trained on four equal cells,
    that of `worst_group` on natural data.
    """
    codes = dictionary.encode(data.train.x)  # [N, L]
    bank = _bank(dictionary, codes, data)  # [L] bool
    test = dictionary.encode(data.test.x)
    removed = (test[:, bank] - codes[:, bank].mean(0)) @ dictionary.directions[bank]  # [N, D]
    scores = _removal(data.test.x - removed, data)
    if bank.all():
        scores |= dict.fromkeys(OF_THE_REST, undefined(NO_REST))
    else:
        rest = ~bank
        scores |= _readable(codes[:, rest], test[:, rest], data)
        natural = dictionary.encode(data.natural.x)[:, rest]
        scores["worst_group"] = _worst_group(natural, test[:, rest], data)
    scores["spurious_cos"] = _mixture(dictionary.directions, data.features)
    details = {
        "bank": bank.nonzero().squeeze(1).tolist(),
        "clean_accuracy": data.clean_accuracy[0],
        "biased_accuracy": data.biased_accuracy[0],
        "leace": dict(data.leace),
    }
    return Result(scores, details=details)


def _accuracies(logits: Tensor, y: Tensor) -> tuple[float, float]:
    """At threshold 0, and at the best threshold."""
    return accuracy(logits, y), best_accuracy(logits, y)


def _bank(dictionary: Dictionary, codes: Tensor, data: SpuriousData) -> Tensor:
    """Which latents are the bank `[L]`: the block of that name, else those through which most of
    s's probe is reached.

    Attribution: the gap of the mean code between s = 1 and s = 0, times the decoder row along the
    probe's direction.
    """
    blocks = structure_of(dictionary).blocks
    bank = torch.zeros(codes.shape[1], dtype=torch.bool)
    if "bank" in blocks:
        bank[list(blocks["bank"])] = True
        return bank
    with_s = data.train.spurious > 0
    gap = codes[with_s].mean(0) - codes[~with_s].mean(0)
    attribution = gap * (dictionary.directions @ data.spurious_direction)
    bank[attribution.topk(min(BANK, len(bank))).indices] = True
    return bank


def _removal(x: Tensor, data: SpuriousData) -> dict[str, Score]:
    """SCR of test activations `[N, D]` after a removal, without and with a re-fitted threshold."""
    reached = _accuracies(data.biased(x), data.test.task)

    def won_back(threshold: int) -> Score:
        clean, biased = data.clean_accuracy[threshold], data.biased_accuracy[threshold]
        if clean - biased < MIN_GAP:
            return undefined(
                f"the biased probe ({biased:.3f}) is as good as the clean one ({clean:.3f})"
            )
        return world_score((reached[threshold] - biased) / (clean - biased), len(x))

    return {"scr": won_back(0), "scr_threshold": won_back(1)}


def _readable(train: Tensor, test: Tensor, data: SpuriousData) -> dict[str, Score]:
    """What fresh probes read from codes or activations `[N, C]` of the two balanced samples."""
    n, labels = len(test), data.train.spurious
    task = accuracy(linear_probe(train, data.train.task)(test), data.test.task)
    linear = accuracy(linear_probe(train, labels)(test), data.test.spurious)
    mlp = accuracy(mlp_probe(train, labels)(test), data.test.spurious)
    return {
        "leak_linear": world_score(linear, n),
        "leak_mlp": world_score(mlp, n),
        "task_accuracy": world_score(task / data.clean_accuracy[0], n),
    }


def _worst_group(natural: Tensor, test: Tensor, data: SpuriousData) -> Score:
    """The worst of the four cells, of a probe of T trained on natural codes `[N, C]`."""
    logits = linear_probe(natural, data.natural.task)(test)
    cell = 2 * data.test.task + data.test.spurious
    by_cell = [accuracy(logits[cell == i], data.test.task[cell == i]) for i in range(4)]
    return world_score(min(by_cell), len(test) // 4)


def _mixture(directions: Tensor, features: Tensor) -> Score:
    """|cos| of the latent nearest to the task with the spurious feature, minus |cos| of the two
    features `[2, D]`.
    """
    live = directions[directions.norm(dim=1) > 0]
    if len(live) == 0:
        return undefined("no latent has a direction")
    cosines = (unit_rows(live) @ features.T).abs()  # [L, 2]
    mixture = cosines[cosines[:, 0].argmax(), 1] - (features[0] @ features[1]).abs()
    return world_score(float(mixture), len(live))


def _leace_row(data: SpuriousData) -> dict[str, float | None]:
    """The ceiling of linear removal: LEACE on x, by the same measures."""
    eraser = leace(data.train.x, data.train.spurious)
    train, test = eraser(data.train.x), eraser(data.test.x)
    scores = _removal(test, data) | _readable(train, test, data)
    return {name: score.value for name, score in scores.items()}
