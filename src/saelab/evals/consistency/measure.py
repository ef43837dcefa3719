"""Causal consistency: do the latents that tell a concept also act where the concept decides the
next token?

For every concept (`in_comment=yes`), with files split in two halves:

- tokens that it decides: next tokens at least 4 times as frequent after a token with the concept as
  after one without, seen 20 times with it and in 3 files, counted on all tokens of the training
  files;
- carriers: the 4 latents of the highest AUROC for it on the training files;
- effect: by how much the log-probability of those tokens falls, together, when the carriers are
  changed at a position of the test files where the concept holds and the next token is one of them
  (`effects`); under `steer`, by how much it rises when carriers are added where the
  concept does not hold.

Each effect stands beside that of a random direction and of other latents, at the same position and
of the same norm.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from saelab.effects.intervene import ON_SILENT, TYPES, check_types, control_covariance
from saelab.effects.reactions import Text, captured_text, check_model
from saelab.evals.common.auroc import Array
from saelab.evals.common.halves import (
    Halves,
    embedded_labels,
    halves_of,
    holding,
    usable_concepts,
)
from saelab.evals.common.interventions import latents_of
from saelab.evals.common.reading import check_fits, encoded, kept_activations
from saelab.evals.consistency.effects import Subject, effects_of
from saelab.evals.consistency.summary import Finding, summarise
from saelab.evals.consistency.tokens import Question, questions_of
from saelab.evals.result import Result
from saelab.types import Dictionary

if TYPE_CHECKING:
    from saelab.ground.held_out import HeldOut
    from saelab.text.labels.labelled import TokenLabels

MIN_TOUCHED = 10  # decided positions on which a carrier must be active


@dataclass(frozen=True, eq=False)
class ConsistencyData:
    """Held-out activations, and for every concept what it decides."""

    text: Text
    x: Tensor  # [N, D] at kept positions
    halves: Halves  # its labelled positions: n of the training files, n' of the test files
    train: Array  # [n, C] bool, whether the concepts hold there
    shuffled: Array  # [n, C] bool, the same in random order
    test: Array  # [n', C] bool
    questions: tuple[Question, ...]  # [C]
    covariance: Tensor  # [D, D] of the control
    facts: Mapping[str, Any]


def prepare(held: "HeldOut") -> ConsistencyData:
    """Label the held-out files of the embedded corpus."""
    lm: Any = held.model
    labels, facts = embedded_labels(held)
    return prepare_labelled(held, labels, facts=facts, decode=lm.decode)


def prepare_labelled(
    held: "HeldOut",
    labels: "TokenLabels",
    *,
    positions: int = 32,
    facts: Mapping[str, Any] | None = None,
    decode: Callable[[list[int]], list[str]] = lambda ids: [str(i) for i in ids],
) -> ConsistencyData:
    """The same on any labelled tokens and held-out windows that were cut from them.

    `positions`: how many are drawn per concept, evenly over the text, where it decides; half as
    many elsewhere and without it. A token with an unknown label is left out. Raises `TypeError` for
    what is no language model, and `ValueError` when the windows show another text, there are fewer
    than two files, or no concept decides tokens often enough.
    """
    if positions < 2:
        raise ValueError(f"{positions} positions per concept; give at least 2")
    assert held.text is not None
    lm, windows = held.model, [batch for batch, _ in held.batches]
    check_model(lm)
    x = kept_activations(windows, lm.hook)
    keep = torch.cat([batch.keep.cpu() for batch in windows])
    halves = halves_of(labels, held.text, keep)
    concepts, rare = usable_concepts(labels, halves)
    questions, skipped = questions_of(labels, halves, concepts, positions=positions, decode=decode)
    holds = holding(labels, [question.concept for question in questions])
    train = holds[halves.place[halves.train]].numpy()
    test = holds[halves.place[halves.test]].numpy()
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(1)).numpy()
    about = {
        **(facts or {}),
        "hook": lm.hook.name,
        "tokens": len(halves.rows),
        "train_files": len(halves.file[halves.train].unique()),
        "test_files": len(halves.file[halves.test].unique()),
        "positions": positions,
        "skipped": rare | skipped,
    }
    return ConsistencyData(
        captured_text(lm, windows),
        x,
        halves,
        train,
        train[order],
        test,
        tuple(questions),
        control_covariance(x),
        about,
    )


@torch.no_grad()
def measure(
    dictionary: Dictionary,
    data: ConsistencyData,
    *,
    carriers: int = 4,
    types: Sequence[str] = TYPES,
    seed: int = 0,
) -> Result:
    """Effects of the `carriers` best latents of every concept under every intervention type.
    Deterministic.

    Cost: concepts * positions * types * 3 rows through the upper layers, less where carriers are
    silent. Raises `ValueError` for a dictionary of another width or hook, an unknown type, or fewer
    than one carrier.
    """
    check_types(types)
    if carriers < 1:
        raise ValueError(f"{carriers} carriers per concept; change at least 1 latent")
    check_fits(dictionary, data.x.shape[1], data.text.lm.hook)
    subject = Subject(
        data.text,
        latents_of(dictionary, encoded(dictionary, data.x)),
        data.halves.train,
        data.halves.file,
        data.covariance,
        torch.Generator().manual_seed(seed),
    )
    chosen = subject.carriers(data.train, carriers)
    by_chance = subject.carriers(data.shuffled, carriers)
    auroc = subject.auroc(data.test, data.halves.test)  # [L, C]
    findings = [
        _measured(
            subject,
            Finding(question, chosen[c].tolist(), auroc[chosen[c].numpy(), c].tolist()),
            chosen[c],
            by_chance[c],
            types,
        )
        for c, question in enumerate(data.questions)
    ]
    facts = {
        **data.facts,
        "n_latents": len(dictionary.directions),
        "live": int(subject.live.sum()),
        "carriers": carriers,
        "seed": seed,
    }
    return summarise(findings, types, facts)


def _measured(
    subject: Subject, finding: Finding, carriers: Tensor, by_chance: Tensor, types: Sequence[str]
) -> Finding:
    """The finding with the effects of the concept's carriers, or with why there are none."""
    if not len(carriers):
        return replace(
            finding,
            reason="no latent that is active on 30 training tokens tells it better than chance",
        )
    question, effects = finding.question, {}
    active = [name for name in types if name not in ON_SILENT]
    silent = [name for name in types if name in ON_SILENT]
    if active:
        decided = effects_of(subject, carriers, question.decided, question.members, active)
        finding = replace(finding, coverage=float(decided.touched.float().mean()))
        n = int(decided.touched.sum())
        if n < MIN_TOUCHED:
            reason = (
                f"its carriers are active on {n} of {len(decided.touched)} decided positions, "
                f"fewer than {MIN_TOUCHED}"
            )
            return replace(finding, reason=reason)
        first, half = active[:1], question.decided[::2]
        elsewhere = effects_of(subject, carriers, question.elsewhere, question.members, first)
        chance = effects_of(subject, by_chance, half, question.members, first)
        effects |= decided.by_type
        finding = replace(
            finding,
            stretch=decided.stretch,
            elsewhere=elsewhere.by_type[active[0]],
            by_chance=chance.by_type[active[0]],
        )
    if silent:
        added = effects_of(subject, carriers, question.without, question.members, silent)
        effects |= added.by_type
    return replace(finding, effects=effects)
