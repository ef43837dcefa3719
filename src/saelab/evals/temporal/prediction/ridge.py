"""Ridge regression of the activation some tokens later on inputs of one token, from sums only.

Inputs are standardised, so their scale changes nothing. The penalty is half of the one with which
the two folds predict each other best: the best penalty per pair falls with their number. Legend: n
pairs of tokens | C inputs | D width | S sums.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from saelab.evals.common.auroc import Array
from saelab.evals.temporal.text import TEST, Text

PENALTIES = 2.0 ** torch.arange(-8, 5).double()  # on standardised inputs, per pair
OF_ALL = 0.3  # penalty of the regression on all inputs, which only ranks them
FLOOR = 0.01  # penalty while inputs are chosen one after the other

Read = Callable[[slice], Tensor]  # some windows -> inputs [w, T, C]


@dataclass(frozen=True)
class Moments:
    """Sums over pairs (inputs of a token, y of the later one), doubles."""

    n: int
    x: Tensor  # [C]
    y: Tensor  # [D]
    xx: Tensor  # [C, C]
    xy: Tensor  # [C, D]
    yy: float

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(
            *(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__)
        )

    def of(self, inputs: Tensor) -> "Moments":
        """Those of some of the inputs."""
        xx = self.xx[inputs][:, inputs]
        return Moments(self.n, self.x[inputs], self.y, xx, self.xy[inputs], self.yy)

    def seen_by(self, other: "Moments") -> tuple[Tensor, Tensor, float]:
        """Covariances of inputs `[C, C]` and with y `[C, D]`, and mean |y|^2, in the other's units:
        less its means, inputs divided by its deviations.
        """
        mean_x, mean_y, scale = other.x / other.n, other.y / other.n, other.scale
        x, y = self.x / self.n - mean_x, self.y / self.n - mean_y
        outer = torch.outer(x, mean_x)
        xx = self.xx / self.n - torch.outer(mean_x, mean_x) - outer - outer.T
        xy = self.xy / self.n - torch.outer(mean_x, mean_y) - torch.outer(x, mean_y)
        xy = xy - torch.outer(mean_x, y)
        yy = self.yy / self.n - 2 * float(self.y / self.n @ mean_y) + float(mean_y @ mean_y)
        return xx * torch.outer(scale, scale), xy * scale.unsqueeze(1), yy

    @property
    def scale(self) -> Tensor:
        """1 / deviation `[C]`; 0 for an input that is constant."""
        mean = self.x / self.n
        power = self.xx.diagonal() / self.n
        variance = power - mean.square()
        return torch.where(variance > 1e-9 * power, variance.clamp_min(1e-300).rsqrt(), 0)


@dataclass(frozen=True)
class Ridge:
    """A prediction of y from some of the inputs."""

    inputs: Tensor  # [n] numbers of the inputs
    mean: Tensor  # [n]
    weight: Tensor  # [n, D]
    bias: Tensor  # [D]

    def __call__(self, x: Tensor) -> Tensor:
        """`[n, C]` -> `[n, D]`."""
        return (x[:, self.inputs] - self.mean) @ self.weight + self.bias


Folds = tuple[Moments, Moments]


def moments(text: Text, read: Read, lags: Sequence[int]) -> dict[int, Folds]:
    """The sums of both folds that are fitted on, for every lag, a few windows at a time."""
    sums: dict[int, list[Moments]] = {}
    for windows in text.slices():
        x = read(windows)
        for lag in lags:
            fold = text.fold[windows][:, : x.shape[1] - lag]
            together = text.together(lag, windows)
            for f in (0, 1):
                at = together & (fold == f)
                new = _moments(x[:, : x.shape[1] - lag][at], text.y[windows][:, lag:][at])
                both = sums.setdefault(lag, [])
                if len(both) < 2:
                    both.append(new)
                else:
                    both[f] = both[f] + new
    return {lag: (both[0], both[1]) for lag, both in sums.items()}


def _moments(x: Tensor, y: Tensor) -> Moments:
    return Moments(
        len(x),
        x.sum(0).double(),
        y.sum(0).double(),
        (x.T @ x).double(),
        (x.T @ y).double(),
        float(y.double().square().sum()),
    )


def ridge(folds: Folds, inputs: Tensor) -> Ridge:
    """The regression on some inputs, with the penalty that both folds together ask for."""
    first, second = (fold.of(inputs) for fold in folds)
    error = _errors(first, second) + _errors(second, first)
    return _fitted(first + second, inputs, float(PENALTIES[error.argmin()]) / 2)


def _fitted(both: Moments, inputs: Tensor, penalty: float) -> Ridge:
    xx, xy, _ = both.seen_by(both)
    weight = torch.linalg.solve(xx + penalty * torch.eye(len(xx)).double(), xy)
    weight = weight * both.scale.unsqueeze(1)
    bias = both.y / both.n
    return Ridge(inputs, (both.x / both.n).float(), weight.float(), bias.float())


def _errors(fitted: Moments, scored: Moments) -> Tensor:
    """Mean squared error on one fold, per penalty, fitted on the other."""
    xx, xy, _ = fitted.seen_by(fitted)
    eigenvalues, vectors = torch.linalg.eigh(xx)
    xx, xy_scored, yy = scored.seen_by(fitted)
    along = vectors.T @ xy  # [C, D]
    shrink = 1 / (eigenvalues + PENALTIES.unsqueeze(1))  # [penalties, C]
    hit = (along * (vectors.T @ xy_scored)).sum(1)
    power = (vectors.T @ xx @ vectors) * (along @ along.T)
    return yy - 2 * shrink @ hit + ((shrink @ power) * shrink).sum(1)


def weights(folds: Folds) -> Array:
    """Size `[C]` of the weight of every standardised input in the regression on all."""
    both = folds[0] + folds[1]
    fitted = _fitted(both, torch.arange(len(both.x)), OF_ALL)
    deviation = torch.where(both.scale > 0, 1 / both.scale, 0)
    return (fitted.weight.double().norm(dim=1) * deviation).numpy()


def greedily(folds: Folds, inputs: Array, n: int) -> Array:
    """Up to `n` of the `inputs`, each the one that lowers the error most beside those before."""
    both = (folds[0] + folds[1]).of(torch.from_numpy(inputs))
    xx, left, _ = both.seen_by(both)
    room = xx.diagonal() + FLOOR  # what of each input the chosen ones do not explain
    factor = xx.new_zeros(len(xx), 0)
    chosen: list[int] = []
    for _ in range(min(n, len(xx))):
        gain = left.square().sum(1) / room.clamp_min(FLOOR)
        gain[chosen] = -1
        best = int(gain.argmax())
        column = xx[:, best] - factor @ factor[best]
        column[best] += FLOOR
        column = column / room[best].clamp_min(FLOOR).sqrt()
        left = left - torch.outer(column, left[best] / room[best].clamp_min(FLOOR).sqrt())
        room, factor = room - column.square(), torch.cat([factor, column.unsqueeze(1)], 1)
        chosen.append(best)
    return inputs[chosen]


def errors(
    text: Text, read: Read, fitted: Mapping[tuple[int, str], Ridge]
) -> dict[tuple[int, str], Tensor]:
    """|y - prediction|^2 and |y|^2 summed over the documents that are scored `[C, 2]`, of every
    regression under its (lag, name).
    """
    sums = {key: torch.zeros(text.n_docs, 2, dtype=torch.double) for key in fitted}
    seen = {key[0]: torch.zeros(text.n_docs, dtype=torch.bool) for key in fitted}
    for windows in text.slices():
        x = read(windows)
        for lag in seen:
            n = x.shape[1] - lag
            at = text.together(lag, windows) & (text.fold[windows][:, :n] == TEST)
            doc, now = text.doc[windows][:, :n][at], x[:, :n][at]
            y = text.y[windows][:, lag:][at]
            power = y.square().sum(1).double()
            seen[lag][doc] = True
            for key, prediction in fitted.items():
                if key[0] == lag:
                    error = (y - prediction(now)).square().sum(1).double()
                    sums[key].index_add_(0, doc, torch.stack([error, power], 1))
    return {key: value[seen[key[0]]] for key, value in sums.items()}


def best(order: Array, values: Array, n: int) -> Array:
    """The `n` of `order` with the largest values, in that order."""
    return order[np.argsort(-values[order], kind="stable")[:n]]
