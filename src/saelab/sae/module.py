"""The only autoencoder class: x -> pre = (x - b_dec) @ W_enc + b_enc -> z = act(pre) -> x_hat = z @
W_dec + b_dec.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from saelab.numbers import Kind
from saelab.sae import kernels
from saelab.sae.activations import Activation
from saelab.sae.own import CURE
from saelab.types import Hook, Structure


class SAE(nn.Module):
    """A sparse autoencoder with the ecosystem's names and shapes; satisfies `types.Dictionary`.

    `W_enc [D, L]`, `W_dec [L, D]` (rows are latents, unit norm), `b_enc [L]`, `b_dec [D]`; `act` is
    the activation; `blocks` names ranges of latents that a variant treats apart (levels, for
    instance).

    `refine` eta > 0: one LISTA step, in training and at inference. With z_0 = first(pre(x)), the
    codes are act(pre(x) + eta (x - decode(z_0)) @ W_enc); `first` is the activation again, with a
    threshold of its own. 0: none. `leave_one_out`: the share of active latents that inference
    drops, those which the others make superfluous (`prune`). Raises `ValueError` when either is out
    of range, or when `act` has parameters and there is a step to refine by.
    """

    drop_below: Tensor
    source = ""  # no code of its own

    def __new__(cls, *_args: object, **_settings: object) -> "SAE":
        """Refuses a subclass, whatever it is given. Raises `TypeError` with the cure."""
        if cls is not SAE:
            name = cls.__name__
            raise TypeError(
                f"{name} is a subclass of SAE; training calls `codes`, loading makes a plain SAE, "
                f"and what it overrides would be left out in silence. Write `class "
                f"{name}(nn.Module)` instead: {CURE}"
            )
        return super().__new__(cls)

    def __init__(
        self,
        d_in: int,
        n_latents: int,
        act: Activation,
        *,
        blocks: Mapping[str, range] | None = None,
        hook: Hook | None = None,
        generator: torch.Generator | None = None,
        refine: float = 0.0,
        leave_one_out: float = 0.0,
    ):
        super().__init__()
        Kind(0, 1).check("refine", refine, "the size of the refinement step")
        Kind(0, 0.9).check("leave_one_out", leave_one_out, "a share of the active latents")
        if refine > 0 and any(True for _ in act.parameters()):
            raise ValueError(
                f"refine is {refine:g}, and {act.name} has parameters; use one of relu, topk, "
                "batch_topk"
            )
        rows = torch.randn(n_latents, d_in, generator=generator)
        rows /= rows.norm(dim=1, keepdim=True)
        self.W_dec = nn.Parameter(rows)
        # The transpose at start (Gao et al. 2024, 2406.04093, appendix A.2), and in memory too: [D,
        # L] is a view of [L, D], so that gradients are sums of rows.
        self.W_enc = nn.Parameter(rows.clone().T)
        self.b_enc = nn.Parameter(torch.zeros(n_latents), requires_grad=not act.own_bias)
        self.b_dec = nn.Parameter(torch.zeros(d_in))
        self.act = act
        self.refine, self.leave_one_out = refine, leave_one_out
        self.first = copy.deepcopy(act) if refine > 0 else None
        if leave_one_out > 0:
            self.register_buffer("drop_below", torch.zeros(()))
        self.blocks = dict(blocks or {})
        self.hook = hook
        self.meta: Mapping[str, Any] = {}  # of one that was loaded: its run, what it was trained on

    def config(self) -> dict[str, Any]:
        """What, beside its sizes and tensors, rebuilds it."""
        return {
            "activation": self.act.name,
            "activation_config": self.act.config(),
            "refine": self.refine,
            "leave_one_out": self.leave_one_out,
        }

    def __repr__(self) -> str:
        place = "no hook" if self.hook is None else self.hook.name
        asked = self.meta.get("run", {}).get("spec", {}).get("l0")
        trained = "" if asked is None else f", trained for L0 {asked:g}"
        return f"SAE({self.name}: width {self.d_in}, {self.n_latents} latents, {place}{trained})"

    @property
    def d_in(self) -> int:
        return self.W_dec.shape[1]

    @property
    def n_latents(self) -> int:
        return self.W_dec.shape[0]

    @property
    def directions(self) -> Tensor:
        return self.W_dec

    @property
    def structure(self) -> Structure:
        """Its blocks and its encoder."""
        bias = self.act.bias(self.b_enc)
        return Structure(self.blocks, encoder=self.W_enc, encoder_bias=bias)

    def pre(self, x: Tensor) -> Tensor:
        """Pre-activations `[..., L]`. The decoder bias is folded into the encoder's, so nothing is
        subtracted from x.
        """
        return kernels.encode(x, self.W_enc, self.b_enc, self.b_dec)

    def codes(
        self,
        x: Tensor,
        progress: float | None = None,
        among: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Refined pre-activations and codes, both `[..., L]`: as in training at `progress`, or by
        the thresholds (None).

        `among`: another batch, its activations `[M, D]` and what this gave as its pre-activations
        `[M, L]`. An activation that selects among the positions of a batch in training then selects
        among those, and x is coded by the threshold that results.
        """
        if self.first is not None:
            first_among = None if among is None else self.pre(among[0])
            x = self._refined(x, self.first, progress, first_among)
        pre = self.pre(x).to(x.dtype)  # under autocast the products are short, the selection is not
        return pre, _select(self.act, pre, progress, None if among is None else among[1])

    def encode(self, x: Tensor) -> Tensor:
        """Codes `[..., L]` of activations `[..., D]`, as at inference."""
        if x.shape[-1] != self.d_in:
            raise ValueError(
                f"activations of width {x.shape[-1]} given to an SAE of width {self.d_in}"
            )
        return self.prune(x, self.codes(x)[1])

    @property
    def selects_over_batch(self) -> bool:
        """Whether training selects codes over the whole batch (see `encode_batch`)."""
        return self.act.selects_over_batch

    def encode_batch(self, x: Tensor) -> Tensor:
        """Codes `[..., L]` of activations `[..., D]`, as at the end of training."""
        return self.prune(x, self.codes(x, 1.0)[1])

    def prune(self, x: Tensor, z: Tensor) -> Tensor:
        """Codes without the latents that the others make superfluous; `z` itself where
        `leave_one_out` is 0.

        The score of an active latent is what it should be, given the others: z_j ||W_dec_j||^2 + (x
        - x_hat) . W_dec_j, in units of x. It is dropped when that is not above `drop_below`, all at
        once. B. Bussmann, leave-one-out refinement.
        """
        if self.leave_one_out == 0:
            return z
        return kernels.support_only(z * (self._scores(x, z) > self.drop_below))

    def decode(self, z: Tensor) -> Tensor:
        """Reconstruction `[..., D]` of codes `[..., L]`."""
        return kernels.decode(z, self.W_dec, kernels.is_support_only(z)) + self.b_dec

    def decode_part(self, z: Tensor, latents: range) -> Tensor:
        """What a range of latents, of step 1, adds to the reconstruction of codes `[..., L]`:
        `[..., D]`, without `b_dec`.
        """
        these = slice(latents.start, latents.stop)
        return kernels.decode(z[..., these], self.W_dec[these], kernels.is_support_only(z))

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))

    @torch.no_grad()
    def calibrate_(self, x: Tensor, l0: float) -> None:
        """Set the thresholds so that the mean L0 on `x` `[N, D]` is `l0`, after what leaving one
        out drops.
        """
        wide = l0 / (1 - self.leave_one_out)
        if self.first is not None:
            self.first.calibrate_(self.pre(x), wide)
        pre, _ = self.codes(x)
        self.act.calibrate_(pre, wide)
        if self.leave_one_out > 0:
            z = self.act(pre)
            scores, count = self._scores(x, z)[z > 0], max(1, round(l0 * len(x)))
            if count < len(scores):
                self.drop_below.copy_(kernels.halfway(scores, count))

    @property
    def name(self) -> str:
        """Its activation."""
        return self.act.name

    @torch.no_grad()
    def start_at_(self, mean: Tensor) -> None:
        """Set the decoder's bias to the mean `[D]` of the activations, before the first step."""
        self.b_dec.copy_(mean)

    @torch.no_grad()
    def project_(self) -> None:
        """Decoder rows back to unit norm, the activation's parameters into their range."""
        self.act.project_()
        self.W_dec.div_(self.W_dec.norm(dim=1, keepdim=True).clamp_min(1e-12))

    @torch.no_grad()
    def project_gradient_(self) -> None:
        """Keep of the decoder's gradient what turns its rows (Bricken et al. 2023)."""
        if self.W_dec.grad is not None:
            along = (self.W_dec.grad * self.W_dec).sum(1, keepdim=True)
            self.W_dec.grad.addcmul_(along, self.W_dec, value=-1)

    @torch.no_grad()
    def fold_scale_(self, scale: float) -> None:
        """From an SAE of `scale * x` to the same SAE of x, exactly: biases and thresholds divided
        by `scale`.

        W_enc and W_dec (unit rows) stay; codes and reconstruction are in units of x. Not for
        latents whose activation is not positively homogeneous (all of ours are: z(c * pre, c *
        threshold) = c * z(pre, threshold)).
        """
        self.b_enc.div_(scale)
        self.b_dec.div_(scale)
        self.act.rescale_(1 / scale)
        if self.first is not None:
            self.first.rescale_(1 / scale)
        if self.leave_one_out > 0:
            self.drop_below.div_(scale)

    def _refined(
        self, x: Tensor, first: Activation, progress: float | None, among: Tensor | None
    ) -> Tensor:
        """x + eta (x - decode(z_0)): its pre-activations are pre(x) + eta (x - decode(z_0)) @
        W_enc.

        To the weights the residual is a constant, so that each latent is trained by its own code
        and not by what it leaves to others (else the loss of a level would reach the latents of the
        levels before it); to x it is not.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and x.requires_grad):
            z = _select(first, self.pre(x).to(x.dtype), progress, among)
            return x + self.refine * (x - self.decode(z))

    @torch.no_grad()
    def _scores(self, x: Tensor, z: Tensor) -> Tensor:
        """Leave-one-out scores of the active latents `[..., L]`; 0 where `z` is."""
        alone = z * self.W_dec.square().sum(1)
        return alone + kernels.products_on_support(x - self.decode(z), self.W_dec, z)


def _select(act: Activation, pre: Tensor, progress: float | None, among: Tensor | None) -> Tensor:
    return act(pre) if progress is None else act.train_codes(pre, progress, among)
