"""Temporal evaluation on language models: which dictionaries hold, in few latents of one token,
what persists along the text, and know it from the position.

A dictionary with a block named "slow" is measured by it; of any other, as many latents are chosen
on documents that are not scored, so that a block is never compared with a whole dictionary. All
scores but T-SAE's smoothness are free of the codes' scale. `prepare` fits what needs no dictionary.
"""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from saelab.evals.common.auroc import Array
from saelab.evals.common.halves import embedded_labels, needs_labels
from saelab.evals.common.reading import check_fits
from saelab.evals.concepts.latents import sparse_codes
from saelab.evals.core.data import Readable
from saelab.evals.result import Result
from saelab.evals.temporal import persistence, probing
from saelab.evals.temporal.metrics import SIZES
from saelab.evals.temporal.prediction.measure import Ceilings, Chosen, ceilings_of, predictions
from saelab.evals.temporal.prediction.ridge import best
from saelab.evals.temporal.specialisation import matrix, redundancy, specialisations, timeline
from saelab.evals.temporal.text import TEST, Codes, Text, codes_of, text_of
from saelab.figures import Axis, Curves
from saelab.ground.held_out import HeldOut
from saelab.text.labels.labelled import TokenLabels
from saelab.types import Dictionary, Score, structure_of


@dataclass(frozen=True, eq=False)
class TemporalData:
    """A held-out text in order, and what needs no dictionary."""

    text: Text
    ceilings: Ceilings
    labels: probing.Labels | None
    unlabelled: str  # why there are no labels


def prepare(held: HeldOut) -> TemporalData:
    """The held-out text of a model, with labels where it is the embedded one. Raises `ValueError`
    for a text without order or with fewer than four documents.
    """
    lack = needs_labels(held.source)
    if held.text is None or lack:
        return prepare_labelled(held, None, unlabelled="".join(lack) or "the text is not known")
    return prepare_labelled(held, embedded_labels(held)[0])


def prepare_labelled(
    held: HeldOut, labels: TokenLabels | None, *, unlabelled: str = "no labels were given"
) -> TemporalData:
    """The same with other labels of Python source, or none."""
    text = text_of(held)
    labelled = None
    if labels is not None:
        assert held.text is not None
        labelled = probing.labels_of(labels, held.text, text.keep)
    return TemporalData(text, ceilings_of(text), labelled, unlabelled)


@torch.no_grad()
def measure(dictionary: Dictionary, data: TemporalData) -> Result:
    """Every score, table and picture of one dictionary; `METRICS` says what each score means.
    Deterministic.

    Raises `ValueError` when the dictionary has no latents, another width or hook than the data.
    """
    text = data.text
    check_fits(dictionary, text.x.shape[2], text.lm.hook)
    codes = codes_of(dictionary, text)
    slow = structure_of(dictionary).blocks.get("slow")
    chosen = Chosen(None if slow is None else np.array(slow), _persistent(codes))
    everything = np.arange(codes.rows.shape[1])
    latents = best(everything, chosen.persistent, SIZES[-1]) if slow is None else np.array(slow)
    block = codes.of(latents)
    scores, table, curve = predictions(codes, chosen, data.ceilings)
    tables, figures = {"prediction": table}, [curve]
    if data.labels is None:
        scores |= probing.unlabelled(data.unlabelled)
    else:
        of_labels, tables["labels"] = probing.probes(codes, data.labels, latents)
        scores |= of_labels
    real = persistence.autocorrelation(codes, (TEST,))
    null = persistence.autocorrelation(codes, (TEST,), text.order)
    gains, gain_curve = persistence.gains(block, dictionary.directions[torch.from_numpy(latents)])
    redundant, group = redundancy(codes)
    share = persistence.position_share(codes)
    properties = {
        "run length": persistence.run_length(codes),
        "autocorrelation": np.mean([real[lag] - null[lag] for lag in real], 0),
        "position": share,
        "density": codes.density,
    }
    tables["kinds"], kinds = specialisations(properties, codes.live)
    agreement, agreement_curve = _agreement(dictionary, data, codes, block, latents)
    scores |= gains | redundant | agreement
    scores["autocorrelation"] = persistence.block_autocorrelation(block)
    alive = {"": codes.live, "_block": np.intersect1d(latents, codes.live)}
    for end, some in (("", codes), ("_block", block)):
        scores[f"position_invariance{end}"] = persistence.invariance(share, alive[end])
        scores[f"support_stability{end}"] = persistence.stability(some)
        scores[f"active_latents{end}"] = persistence.active_latents(some)
        scores[f"t_sae_smoothness{end}"] = persistence.t_sae_smoothness(some)
    figures += [
        persistence.picture(real, null, latents, codes.live),
        gain_curve,
        agreement_curve,
        matrix(codes, group, latents),
        kinds,
        *_over_positions(dictionary, codes),
        _timeline(codes, latents),
    ]
    facts = {
        "hook": text.lm.hook.name,
        "tokens": codes.n_kept,
        "documents": text.n_docs,
        "n_latents": len(everything),
        "block": None if slow is None else len(latents),
    }
    return Result(scores, tables, tuple(figures), {"eval": "temporal", "facts": facts})


def _persistent(codes: Codes) -> Array:
    """Autocorrelation `[L]` on the documents that are fitted on, mean over lags; latents that
    hardly ever fire come last.
    """
    mean = np.mean(list(persistence.autocorrelation(codes, (0, 1)).values()), 0)
    last = np.ones(len(mean), bool)
    last[codes.live] = False
    return np.where(last, mean - 3, mean)


def _agreement(
    dictionary: Dictionary, data: TemporalData, codes: Codes, block: Codes, latents: Array
) -> tuple[dict[str, Score], Curves]:
    """Agreement of codes with those of the same tokens with fewer before them."""
    shifted = {shift: sparse_codes(dictionary, x) for shift, x in data.text.shifted.items()}
    scores, lines = {}, {}
    for end, some, rows in (
        ("", codes, shifted),
        ("_block", block, {shift: z[:, latents] for shift, z in shifted.items()}),
    ):
        scores[f"shift_agreement{end}"], each = persistence.agreement(some, rows)
        lines["block" if end else "all latents"] = (list(shifted), each)
    return scores, Curves(
        "shifts",
        "Agreement of active latents under shifts",
        "Jaccard index of the active latents of the same tokens with and without so many more "
        "tokens before them. It falls with the position and with what the lost tokens said.",
        Axis("tokens before the text", log=True),
        Axis("Jaccard index", low=0, high=1),
        lines,
    )


def _over_positions(dictionary: Dictionary, codes: Codes) -> tuple[Curves, Curves]:
    """Error of the reconstruction and number of active latents at every position."""
    text, device = codes.text, dictionary.directions.device
    x = text.x[text.keep]
    places = text.keep.flatten().nonzero().squeeze(1)
    rows = [
        dictionary.decode(codes.grid(windows)[text.keep[windows]].to(device)).float().cpu()
        for windows in text.slices()
    ]
    error = (x - torch.cat(rows)).square().sum(1)
    spread = (x - x.mean(0)).square().sum(1).mean()
    active = torch.from_numpy(codes.active.sum(1))[places]
    position = places % text.keep.shape[1]
    used = position.unique()

    def mean(values: Tensor) -> list[float]:
        total = position.bincount(values.double(), minlength=text.keep.shape[1])
        return (total / position.bincount(minlength=text.keep.shape[1]))[used].tolist()

    def curve(key: str, title: str, note: str, label: str, values: list[float]) -> Curves:
        panel = {"all latents": (used.tolist(), values)}
        return Curves(key, title, note, Axis("position"), Axis(label, low=0), panel)

    return (
        curve(
            "error_by_position",
            "Error over the position",
            "Squared error of the reconstruction as a share of the mean squared distance from the "
            "mean activation, by position in the window.",
            "share of variance",
            mean(error / spread.clamp_min(1e-30)),
        ),
        curve(
            "active_by_position",
            "Active latents over the position",
            "Mean number of active latents of a token, by position in the window.",
            "active latents",
            mean(active),
        ),
    )


def _timeline(codes: Codes, latents: Array) -> Any:
    """Over the scored window that shows most of one document."""
    text = codes.text
    scored = text.fold == TEST
    lengths = [
        int(text.doc[w][scored[w]].bincount().max()) if scored[w].any() else 0
        for w in range(len(scored))
    ]
    window = int(np.argmax(lengths))
    words = cast(Readable, text.lm).decode(text.tokens[window].tolist())
    return timeline(codes, latents, words, window)
