"""The only autoencoder class: x -> pre = (x - b_dec) @ W_enc + b_enc -> z = act(pre) -> x_hat = z @ W_dec + b_dec."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from saelab.sae import kernels
from saelab.sae.activations import Activation, Gated
from saelab.types import Hook


class SAE(nn.Module):
    """A sparse autoencoder with the ecosystem's names and shapes; satisfies `types.Dictionary`.

    `W_enc [D, L]`, `W_dec [L, D]` (rows are latents, unit norm), `b_enc [L]`, `b_dec [D]`; `act` is the activation;
    `blocks` names ranges of latents that a variant treats apart (levels, for instance).
    """

    def __init__(
        self,
        d_in: int,
        n_latents: int,
        act: Activation,
        *,
        blocks: Mapping[str, range] | None = None,
        hook: Hook | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        rows = torch.randn(n_latents, d_in, generator=generator)
        rows /= rows.norm(dim=1, keepdim=True)
        self.W_dec = nn.Parameter(rows)
        # The transpose at start (Gao et al. 2024, 2406.04093, appendix A.2), and in memory too: [D, L] is a view of [L, D],
        # so that gradients are sums of rows.
        self.W_enc = nn.Parameter(rows.clone().T)
        self.b_enc = nn.Parameter(torch.zeros(n_latents), requires_grad=not isinstance(act, Gated))
        self.b_dec = nn.Parameter(torch.zeros(d_in))
        self.act = act
        self.blocks = dict(blocks or {})
        self.hook = hook

    @property
    def d_in(self) -> int:
        """Width D of the activations."""
        return self.W_dec.shape[1]

    @property
    def n_latents(self) -> int:
        """Number L of latents."""
        return self.W_dec.shape[0]

    @property
    def directions(self) -> Tensor:
        """Decoder rows `[L, D]`."""
        return self.W_dec

    def pre(self, x: Tensor) -> Tensor:
        """Pre-activations `[..., L]`. The decoder bias is folded into the encoder's, so nothing is subtracted from x."""
        return kernels.encode(x, self.W_enc, self.b_enc, self.b_dec)

    def encode(self, x: Tensor) -> Tensor:
        """Codes `[..., L]` of activations `[..., D]`, as at inference."""
        if x.shape[-1] != self.d_in:
            raise ValueError(f"activations of width {x.shape[-1]} given to an SAE of width {self.d_in}")
        return self.act(self.pre(x))

    def decode(self, z: Tensor) -> Tensor:
        """Reconstruction `[..., D]` of codes `[..., L]`."""
        return kernels.decode(z, self.W_dec, kernels.is_support_only(z)) + self.b_dec

    def decode_part(self, z: Tensor, latents: range) -> Tensor:
        """What a range of latents, of step 1, adds to the reconstruction of codes `[..., L]`: `[..., D]`, without `b_dec`."""
        part = slice(latents.start, latents.stop)
        return kernels.decode(z[..., part], self.W_dec[part], kernels.is_support_only(z))

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruction of x."""
        return self.decode(self.encode(x))

    @torch.no_grad()
    def project_(self) -> None:
        """Decoder rows back to unit norm."""
        self.W_dec.div_(self.W_dec.norm(dim=1, keepdim=True).clamp_min(1e-12))

    @torch.no_grad()
    def project_gradient_(self) -> None:
        """Remove from the decoder's gradient what only changes the norm of its rows (Bricken et al. 2023)."""
        if self.W_dec.grad is not None:
            along = (self.W_dec.grad * self.W_dec).sum(1, keepdim=True)
            self.W_dec.grad.addcmul_(along, self.W_dec, value=-1)

    @torch.no_grad()
    def fold_scale_(self, scale: float) -> None:
        """From an SAE of `scale * x` to the same SAE of x, exactly: biases and thresholds divided by `scale`.

        W_enc and W_dec (unit rows) stay; codes and reconstruction are in units of x. Not for latents whose activation
        is not positively homogeneous (all of ours are: z(c * pre, c * threshold) = c * z(pre, threshold)).
        """
        self.b_enc.div_(scale)
        self.b_dec.div_(scale)
        self.act.rescale_(1 / scale)
