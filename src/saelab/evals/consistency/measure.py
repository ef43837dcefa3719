"""Causal consistency: do the latents that tell a concept also act where the concept decides the
next token?

For every concept (`in_comment=yes`), with files split in two halves:

- tokens that it decides: next tokens at least 4 times as frequent after a token with the concept as
  after one without, seen 20 times with it and in 3 files, counted on all tokens of the training
  files;
- carriers: the 4 latents of the highest AUROC for it on the training files;
- effect: by how much the log-probability of those tokens falls, together, when the carriers are
  changed at a position of the test files where the concept holds and the next token is one of them
  (`consistency_effects`); under `steer`, by how much it rises when carriers are added where the
  concept does not hold.

Each effect stands beside that of a random direction and of other latents, at the same position and
of the same norm.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from saelab.effects.intervene import ON_SILENT, TYPES, check_types, control_covariance
from saelab.effects.reactions import MAX_BYTES, Text, captured_text, check_model
from saelab.evals.concepts import measure as detection
from saelab.evals.concepts.scores import Array, TestFiles
from saelab.evals.consistency.effects import (
    Chosen,
    Subject,
    auroc_at,
    carriers_of,
    effects_of,
    subject,
)
from saelab.evals.consistency.result import ConsistencyResult, Effect, Finding, summarise
from saelab.evals.consistency.tokens import Halves, Question, halves_of, questions_of
from saelab.evals.nces.effects import latents_of
from saelab.runs import Source
from saelab.text.labels.labelled import TokenLabels, label_tokens, missing_files, stdlib_labels
from saelab.text.windows import TokenWindows
from saelab.types import Dictionary, LanguageModel, Windows

MIN_TOUCHED = 10  # decided positions on which a carrier must be active
CODES_AT_ONCE = 1 << 22  # numbers

requires = detection.requires


@dataclass(frozen=True, eq=False)
class ConsistencyData:
    """Held-out activations, and for every concept what it decides."""

    text: Text
    x: Tensor  # [N, D] at kept positions
    halves: Halves  # its labelled positions: n of the training files, n' of the test files
    holds: Array  # [n + n', C] bool, the concepts there
    shuffled: Array  # [n, C] bool, those of the training files in random order
    questions: tuple[Question, ...]  # [C]
    covariance: Tensor  # [D, D] of the control
    facts: Mapping[str, Any]


def prepare(
    lm: Any, batches: Iterable[tuple[Windows, Any]], source: Source, windows: TokenWindows
) -> ConsistencyData:
    """Label the held-out files of the embedded corpus. `windows`: what `batches` show."""
    labels = label_tokens(stdlib_labels(windows.split, lm.tokenizer), lm.tokenizer)
    missing = missing_files() if source.model == "pylm" else ()
    facts = {
        "model": source.model,
        "corpus": source.corpus,
        "missing_files": list(missing),
        "unparsed": dict(labels.problems),
    }
    return prepare_labelled(lm, batches, windows, labels, facts=facts, decode=lm.decode)


def prepare_labelled(
    lm: LanguageModel,
    batches: Iterable[tuple[Windows, Any]],
    windows: TokenWindows,
    labels: TokenLabels,
    *,
    positions: int = 32,
    facts: Mapping[str, Any] | None = None,
    decode: Callable[[list[int]], list[str]] = lambda ids: [str(i) for i in ids],
    seed: int = 0,
) -> ConsistencyData:
    """The same on any labelled tokens and the windows cut from them, in the order of `batches`.

    `positions`: how many are drawn per concept, evenly over the text, where it decides; half as
    many elsewhere and without it. A token with an unknown label is left out. Raises `TypeError` for
    what is no language model, and `ValueError` when the windows show another text, there are fewer
    than two files, or no concept decides tokens often enough.
    """
    if positions < 2:
        raise ValueError(f"{positions} positions per concept; give at least 2")
    captured = [w for w, _ in batches]
    x = _activations(lm, captured)
    halves = halves_of(labels, windows, torch.cat([w.keep.cpu() for w in captured]), seed=seed)
    rows, n_train = halves.rows, len(halves.train)
    place = halves.place[rows]
    files = TestFiles((torch.arange(len(rows)) < n_train).numpy(), halves.file[halves.test].numpy())
    concepts, rare = detection.usable(labels, place, files)
    questions, skipped = questions_of(labels, halves, concepts, positions=positions, decode=decode)
    holds = torch.stack([labels.holds(question.concept) == 1 for question in questions], 1)[
        place
    ].numpy()
    order = torch.randperm(n_train, generator=torch.Generator().manual_seed(seed + 1)).numpy()
    about = {
        **(facts or {}),
        "hook": lm.hook.name,
        "tokens": len(rows),
        "train_files": len(halves.file[halves.train].unique()),
        "test_files": len(halves.file[halves.test].unique()),
        "positions": positions,
        "skipped": rare | skipped,
    }
    text, covariance = captured_text(lm, captured), control_covariance(x)
    return ConsistencyData(
        text, x, halves, holds, holds[:n_train][order], tuple(questions), covariance, about
    )


@torch.no_grad()
def measure(
    dictionary: Dictionary,
    data: ConsistencyData,
    *,
    carriers: int = 4,
    types: Sequence[str] = TYPES,
    max_bytes: int = MAX_BYTES,
    seed: int = 0,
) -> ConsistencyResult:
    """Effects of the `carriers` best latents of every concept under every intervention type.
    Deterministic.

    Cost: concepts * positions * types * 3 rows through the upper layers, less where carriers are
    silent. Raises `ValueError` for a dictionary of another width or hook, an unknown type, or fewer
    than one carrier.
    """
    check_types(types)
    if carriers < 1:
        raise ValueError(f"{carriers} carriers per concept; change at least 1 latent")
    _check_fits(dictionary, data)
    where = dictionary.directions
    parts = data.x.split(max(1, CODES_AT_ONCE // len(where)))
    latents = latents_of(dictionary, (dictionary.encode(part.to(where.device)) for part in parts))
    train, n_train = data.halves.train, len(data.halves.train)
    is_train = torch.zeros(len(data.x), dtype=torch.bool).index_fill_(0, train, True)
    of = subject(data.text, latents, is_train, data.covariance, seed=seed, max_bytes=max_bytes)
    chosen = carriers_of(of, data.holds[:n_train], train, carriers)
    by_chance = carriers_of(of, data.shuffled, train, carriers)
    told = auroc_at(of, data.holds[n_train:], data.halves.test)  # [L, C]
    findings = [
        _finding(
            of,
            question,
            types,
            Chosen(chosen[c], by_chance[c], told[chosen[c].numpy(), c].tolist()),
            data.halves.file,
        )
        for c, question in enumerate(data.questions)
    ]
    facts = {
        **data.facts,
        "n_latents": len(where),
        "live": int(of.live.sum()),
        "carriers": carriers,
        "seed": seed,
    }
    return summarise(findings, types, facts)


def _finding(
    of: Subject, question: Question, types: Sequence[str], chosen: Chosen, file: Tensor
) -> Finding:
    """Effects of one concept's carriers, or why there are none."""
    active, silent = ([name for name in types if (name in ON_SILENT) == on] for on in (False, True))
    found = Finding(question, chosen.carriers.tolist(), chosen.auroc)
    if not len(chosen.carriers):
        return replace(
            found,
            reason="no latent that is active on 30 training tokens tells it better than chance",
        )
    effects, coverage = {}, None
    if active:
        own = effects_of(of, chosen.carriers, question.decided, question.members, active)
        coverage, n = float(own.touched.float().mean()), int(own.touched.sum())
        if n < MIN_TOUCHED:
            text = (
                f"its carriers are active on {n} of {len(own.touched)} decided positions, fewer "
                f"than {MIN_TOUCHED}"
            )
            return replace(found, coverage=coverage, reason=text)
        of_files = file[question.decided]
        effects |= {name: Effect(own.mass[s], own.kl[s], of_files) for s, name in enumerate(active)}
        rest = effects_of(of, chosen.carriers, question.elsewhere, question.members, active[:1])
        half = question.decided[::2]
        chance = effects_of(of, chosen.by_chance, half, question.members, active[:1])
        found = replace(
            found,
            coverage=coverage,
            stretch=own.stretch,
            elsewhere=Effect(rest.mass[0], rest.kl[0], file[question.elsewhere]),
            by_chance=Effect(chance.mass[0], chance.kl[0], file[half]),
        )
    if silent:
        added = effects_of(of, chosen.carriers, question.without, question.members, silent)
        effects |= {
            name: Effect(added.mass[s], added.kl[s], file[question.without])
            for s, name in enumerate(silent)
        }
    return replace(found, effects=effects)


def _activations(lm: LanguageModel, captured: Sequence[Windows]) -> Tensor:
    """Those at kept positions `[N, D]`, once they are known to exist and to be finite."""
    check_model(lm)
    if not any(w.keep.any() for w in captured):
        raise ValueError(
            "no token is left to evaluate: every window is empty or masked; give a longer "
            "held-out text"
        )
    x = torch.cat([w.flat.float().cpu() for w in captured])
    if not x.isfinite().all():
        raise ValueError(
            f"activations at {lm.hook.name} are not finite; the model itself is broken there"
        )
    return x


def _check_fits(dictionary: Dictionary, data: ConsistencyData) -> None:
    d_in, hook, known = dictionary.directions.shape[1], dictionary.hook, data.text.lm.hook
    if d_in != data.x.shape[1]:
        raise ValueError(
            f"the dictionary has width {d_in}, the activations {data.x.shape[1]}; they belong to "
            "different hooks"
        )
    if hook is not None and hook != known:
        raise ValueError(
            f"the dictionary reads {hook.name}, the data {known.name}; prepare data at {hook.name}"
        )
