"""Fast paths of an SAE on CPU: selection without sorting, products that see active latents only."""

from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, linear

# multiplications of a dense product below which looking for the active latents costs more than it
# saves
SMALL = 1 << 22
# share of non-zero entries above which a dense product runs; a ReLU step breaks even between 1/8
# and 1/4
CROSSOVER = 1 / 16


def kth_largest(values: Tensor, k: int) -> Tensor:
    """The k-th largest entry of `values` (any shape), exact; a scalar tensor.

    On CPU numpy's vectorised selection, 10 to 30 times faster than torch's. Raises `ValueError`
    when k is not in 1..numel.
    """
    flat = values.detach().reshape(-1)
    if not 1 <= k <= flat.numel():
        raise ValueError(f"k is {k}; it must lie in 1..{flat.numel()}, the number of entries")
    place = flat.numel() - k
    if flat.device.type == "cpu" and flat.dtype in (torch.float32, torch.float64):
        return torch.tensor(np.partition(flat.numpy(), place)[place], dtype=flat.dtype)
    return torch.kthvalue(flat, place + 1).values


def halfway(values: Tensor, k: int) -> Tensor:
    """The number halfway between the k-th largest entry of `values` and the next one."""
    return (kth_largest(values, k) + kth_largest(values, k + 1)) / 2


# Products with sparse codes -----------------------------------------------------------------------

# Dense is the definition. After the activation a position has some tens of active latents out of
# thousands, so on CPU the products that only see those go through the active entries. Everything
# here is deterministic, and what is chosen depends on the numbers alone, so a resumed run takes the
# same path.


class _Entries:
    """The non-zero entries of a matrix `[N, L]`, row by row: where they are and what they are.

    Indices are made by numpy on one thread: they are small, and torch's parallel sort waits for
    busy cores.
    """

    def __init__(self, matrix: np.ndarray, flat: np.ndarray):
        self.shape = matrix.shape
        self.flat = flat  # [E] positions in the flattened matrix, ascending
        self.rows, self.columns = np.divmod(flat, matrix.shape[1])  # [E], [E]
        self.values = matrix[self.rows, self.columns]  # [E]

    def times(self, dense: Tensor) -> Tensor:
        """matrix @ dense: `[L, D]` -> `[N, D]`."""
        return _bags(self.rows, self.columns, self.values, self.shape[0], dense)

    def transposed_times(self, dense: Tensor) -> Tensor:
        """matrix.T @ dense: `[N, D]` -> `[L, D]`."""
        # 16 bits: a radix sort
        short = self.columns.astype(np.uint16) if self.shape[1] <= 1 << 16 else self.columns
        order = short.argsort(kind="stable")
        rows, values = self.rows[order], self.values[order]
        return _bags(self.columns[order], rows, values, self.shape[1], dense)

    def column_sums(self) -> Tensor:
        """matrix.sum(0): `[L]`."""
        sums = np.bincount(self.columns, self.values, self.shape[1])
        return torch.from_numpy(sums.astype(self.values.dtype))

    def sampled(self, left: Tensor, right: Tensor) -> Tensor:
        """(left @ right.T) where the matrix is not 0, else 0: `[N, D]`, `[L, D]` -> `[N, L]`."""
        rows, columns = torch.from_numpy(self.rows), torch.from_numpy(self.columns)
        dots = torch.ops.aten._embedding_bag_per_sample_weights_backward(
            left.contiguous(),
            right.contiguous(),
            columns,
            _starts(self.rows, self.shape[0]),
            rows,
            0,
        )
        # the system hands out zeros, so nothing is filled
        out = np.zeros(self.shape, self.values.dtype)
        out.reshape(-1)[self.flat] = dots.numpy()
        return torch.from_numpy(out)


def _starts(bags: np.ndarray, n: int) -> Tensor:
    """Where each of n bags starts in the ascending list of bag numbers."""
    return torch.from_numpy(bags.searchsorted(np.arange(n)))


def _bags(
    bags: np.ndarray, members: np.ndarray, weights: np.ndarray, n: int, dense: Tensor
) -> Tensor:
    """sum over the members of each bag of weight * row of `dense`; an empty bag is 0."""
    index, factors = torch.from_numpy(members), torch.from_numpy(weights)
    return embedding_bag(
        index, dense.contiguous(), _starts(bags, n), mode="sum", per_sample_weights=factors
    )


def _entries(matrix: Tensor, width: int) -> _Entries | None:
    """The entries of `matrix [N, L]`; None when a dense product with `[L, width]` is faster."""
    if matrix.numel() * width < SMALL:
        return None
    numbers = matrix.detach().numpy()
    active = numbers != 0
    if np.count_nonzero(active) > CROSSOVER * active.size:
        return None
    return _Entries(numbers, np.flatnonzero(active))


def _eligible(*tensors: Tensor) -> bool:
    """Whether the sparse path knows what to do with these; on other devices and under autocast the
    definition runs.
    """
    dtype = tensors[0].dtype
    plain = all(t.device.type == "cpu" and t.dtype == dtype and t.numel() > 0 for t in tensors)
    known = dtype in (torch.float32, torch.float64)
    return plain and known and not torch.is_autocast_enabled("cpu")


def support_only(z: Tensor) -> Tensor:
    """Say of codes that their gradient is used only where they are not zero; returns `z`.

    An activation may say so when an entry that it set to 0 passes no gradient on. Tensors computed
    from `z` (an intervention on it, a window shifted in time) do not inherit the promise, nor does
    `z` after a change in place.
    """
    if z.requires_grad:
        vars(z)["support_version"] = z._version
    return z


def is_support_only(z: Tensor) -> bool:
    """Whether `support_only` was said of these very codes."""
    return z.requires_grad and vars(z).get("support_version") == z._version


class _Decode(torch.autograd.Function):
    """z @ weight through the entries of z. Backward: dense where all of grad_z is asked for."""

    @staticmethod
    def forward(ctx, z: Tensor, weight: Tensor, entries: _Entries, support: bool) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(z, weight)
        ctx.entries, ctx.support = entries, support
        return entries.times(weight)

    @staticmethod
    def backward(ctx, grad: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        z, weight = ctx.saved_tensors
        again = torch.is_grad_enabled()  # a second derivative is wanted: the definition has one
        to_z = to_weight = None
        if ctx.needs_input_grad[0]:
            sampled = ctx.support and not again
            to_z = ctx.entries.sampled(grad, weight) if sampled else grad @ weight.T
        if ctx.needs_input_grad[1]:
            to_weight = z.T @ grad if again else ctx.entries.transposed_times(grad)
        return to_z, to_weight, None, None


def decode(z: Tensor, weight: Tensor, support: bool) -> Tensor:
    """z @ weight: `[..., L]`, `[L, D]` -> `[..., D]`; with `support`, grad_z is given only where z
    is not zero.
    """
    if not _eligible(z, weight):
        return z @ weight
    rows = z.flatten(0, -2) if z.dim() > 1 else z[None]
    entries = _entries(rows, weight.shape[1])
    if entries is None:
        return z @ weight
    x_hat = cast(Tensor, _Decode.apply(rows, weight, entries, support))
    return x_hat.reshape(*z.shape[:-1], weight.shape[1])


def products_on_support(left: Tensor, right: Tensor, z: Tensor) -> Tensor:
    """left @ right.T where `z` is not zero, 0 elsewhere: `[..., D]`, `[L, D]`, `[..., L]` -> `[...,
    L]`. Has no gradient.
    """
    with torch.no_grad():
        rows = z.flatten(0, -2) if z.dim() > 1 else z[None]
        entries = _entries(rows, right.shape[1]) if _eligible(left, right, z) else None
        if entries is None:
            return (left @ right.T) * (z != 0)
        return entries.sampled(left.reshape(len(rows), -1), right).reshape(z.shape)


class _Encode(torch.autograd.Function):
    """(x - b_dec) @ W_enc + b_enc for an x that needs no gradient. Backward through the entries of
    the gradient.
    """

    @staticmethod
    def forward(ctx, x: Tensor, W_enc: Tensor, b_enc: Tensor, b_dec: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(x, W_enc, b_dec)
        return linear(x, W_enc.T, b_enc - b_dec @ W_enc)

    @staticmethod
    def backward(ctx, grad: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        x, W_enc, b_dec = ctx.saved_tensors
        entries = None if torch.is_grad_enabled() else _entries(grad, x.shape[1])
        if entries is None:
            total, product = grad.sum(0), lambda dense: grad.T @ dense
        else:
            total, product = entries.column_sums(), entries.transposed_times
        _, needs_W, needs_b_enc, needs_b_dec = ctx.needs_input_grad
        to_W = product(x - b_dec).T if needs_W else None  # [D, L] as a view of [L, D]
        return None, to_W, total if needs_b_enc else None, -(W_enc @ total) if needs_b_dec else None


def encode(x: Tensor, W_enc: Tensor, b_enc: Tensor, b_dec: Tensor) -> Tensor:
    """(x - b_dec) @ W_enc + b_enc: `[..., D]` -> `[..., L]`; b_dec is folded into the bias, nothing
    is subtracted from x.

    The fast path is for training, where x is data; when x needs a gradient (interventions,
    end-to-end losses) the definition runs.
    """
    trained = torch.is_grad_enabled() and W_enc.requires_grad and not x.requires_grad
    if not (trained and _eligible(x, W_enc, b_enc, b_dec)):
        return linear(x, W_enc.T, b_enc - b_dec @ W_enc)
    pre = cast(Tensor, _Encode.apply(x.reshape(-1, x.shape[-1]), W_enc, b_enc, b_dec))
    return pre.reshape(*x.shape[:-1], W_enc.shape[1])
