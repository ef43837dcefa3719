"""What every evaluation must satisfy, as plain functions: a new one, here or elsewhere, is held to
the same.

    for name, check in evaluation_checks(EVALUATION, data, d_in=16):
        check()  # raises AssertionError, saying what is wrong

`data` is what its `prepare` gave, on activations of width `d_in`.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from saelab.evals.common.world import BATCH
from saelab.evals.result import Evaluation, Result, Table
from saelab.figures import figure_from_json, figure_to_json, from_plain
from saelab.store import plain
from saelab.types import Hook, Score, Structure

N_LATENTS = 24


@dataclass
class Linear:
    """A dictionary of a few lines: z = relu(x W_enc), x_hat = z W_dec."""

    W_enc: Tensor  # [D, L]
    directions: Tensor  # [L, D], W_dec
    hook: Hook | None = None

    @property
    def structure(self) -> Structure:
        return Structure(encoder=self.W_enc)

    def encode(self, x: Tensor) -> Tensor:
        return torch.relu(x.float() @ self.W_enc)

    def decode(self, z: Tensor) -> Tensor:
        return z.float() @ self.directions


@dataclass(frozen=True)
class Subject:
    """The evaluation under test, with its prepared data."""

    evaluation: Evaluation
    data: Any
    d_in: int

    def dictionary(self, n_latents: int = N_LATENTS) -> Linear:
        """Random unit directions, read and written alike."""
        generator = torch.Generator().manual_seed(0)
        rows = torch.randn(n_latents, self.d_in, generator=generator)
        rows = torch.nn.functional.normalize(rows, dim=1)
        return Linear(rows.T.contiguous(), rows)

    def result(self, dictionary: Linear | None = None) -> Result:
        """What the evaluation says of a dictionary."""
        return self.evaluation.measure(dictionary or self.dictionary(), self.data)


def evaluation_checks(
    evaluation: Evaluation, data: Any, *, d_in: int
) -> Iterator[tuple[str, Callable[[], None]]]:
    """Checks by name; one raises `AssertionError` when the evaluation fails it."""
    for check in CHECKS:
        name = check.__name__.removeprefix("check_")
        yield name, partial(check, Subject(evaluation, data, d_in))


def check_keys(subject: Subject) -> None:
    """The scores are those that the metrics explain."""
    metrics = {metric.key: metric for metric in subject.evaluation.metrics}
    assert len(metrics) == len(subject.evaluation.metrics), "two metrics have one key"
    _assert_explained(subject.result().scores, subject)
    for metric in metrics.values():
        assert metric.label and metric.meaning.endswith("."), f"{metric.key} is not explained"
        assert not metric.against or metric.against in metrics, f"{metric.key} is against nothing"


def check_json(subject: Subject) -> None:
    """Scores, tables and figures come back from json as they were; files and details are json."""
    result = subject.result()
    json.dumps(plain(dict(result.files)), allow_nan=False)
    written = json.loads(json.dumps(result.to_json(), allow_nan=False))
    for key, score in written["scores"].items():
        assert Score(**score) == result.scores[key], f"{key} changed in json"
    for key, table in written["tables"].items():
        again = json.loads(json.dumps(asdict(from_plain(Table, table))))
        assert again == table, f"table {key} changed in json"
        widths = {len(row) for row in table["rows"]} | {len(table["columns"])}
        assert len(widths) == 1, f"table {key} has rows of {sorted(widths)} columns"
    for figure in written["figures"]:
        again = json.loads(json.dumps(figure_to_json(figure_from_json(figure))))
        assert again == figure, f"figure {figure['key']} changed in json"
    keys = [figure["key"] for figure in written["figures"]]
    assert len(keys) == len(set(keys)), f"two figures have one key: {keys}"


def check_equal(subject: Subject) -> None:
    """Equal input gives an equal result, and torch's global generator is left alone."""
    before = torch.get_rng_state()
    first, again = (_written(subject.result()) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state()), "it drew from the global generator"
    assert first == again, "measuring twice gives two results"


def check_shuffled(subject: Subject) -> None:
    """A dictionary whose codes belong to other directions has scores or reasons."""
    dictionary = subject.dictionary()
    order = torch.randperm(N_LATENTS, generator=torch.Generator().manual_seed(1))
    _assert_said(subject.result(Linear(dictionary.W_enc, dictionary.directions[order])), subject)


def check_zero(subject: Subject) -> None:
    """A dictionary that never fires and has no directions has scores or reasons."""
    nothing = torch.zeros(N_LATENTS, subject.d_in)
    _assert_said(subject.result(Linear(nothing.T, nothing)), subject)


def check_empty(subject: Subject) -> None:
    """A dictionary without latents is refused in words, or has scores or reasons."""
    try:
        result = subject.result(subject.dictionary(0))
    except ValueError as refused:
        assert "latents" in str(refused), f"it is refused without saying why: {refused}"
    else:
        _assert_said(result, subject)


def _assert_said(result: Result, subject: Subject) -> None:
    """Every score is a finite number, or undefined with a reason; all of it is valid json."""
    _assert_explained(result.scores, subject)
    _written(result)
    for key, score in result.scores.items():
        if score.value is None:
            assert score.reason, f"{key} is undefined without a reason"
        else:
            assert isfinite(score.value), f"{key} is {score.value}"


def _assert_explained(scores: Mapping[str, Score], subject: Subject) -> None:
    keys = {metric.key for metric in subject.evaluation.metrics}
    optional = {key for key in keys if key.endswith(BATCH)}  # of SAEs that select over the batch
    apart = sorted((set(scores) ^ keys) - (optional - set(scores)))
    assert not apart, f"scores or metrics without the other: {apart}"


def _written(result: Result) -> str:
    whole = {**result.to_json(), "files": plain(dict(result.files))}
    return json.dumps(whole, allow_nan=False, sort_keys=True)


CHECKS = (check_keys, check_json, check_equal, check_shuffled, check_zero, check_empty)
