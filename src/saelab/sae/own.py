"""An SAE of one's own: any module with `encode` and `decode`, made into what training, files and
evaluations handle.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from saelab.types import Hook

CURE = (
    "an SAE of your own is an nn.Module with encode(x [N, D]) -> codes [N, L], at least 0, and "
    "decode(z [N, L]) -> x_hat [N, D], and optionally loss(x) -> (scalar, {name: value})"
)
ROWS_AT_ONCE = 1_024  # of the identity matrix that finds the directions
CODE = "own.py"  # the file with its source text, beside its tensors
KIND = "own"  # in place of an activation's name


class OwnSAE(nn.Module):
    """A module of somebody's own, trained, saved and evaluated by its own `encode` and `decode`.

    The module sees activations as training scales them, to mean squared norm 1; `encode` and
    `decode` of this class take and give the model's own units once `fold_scale_` has said the
    scale: z(x) = encode(scale x) / scale. Codes may be dense. Whatever else a loss term asks of the
    SAE (`W_dec`), the module answers. `source` is the text of the file that defines it. Raises
    `TypeError` when the module lacks a method, `ValueError` when shapes do not fit.
    """

    scale: Tensor

    def __init__(self, module: nn.Module, d_in: int, *, hook: Hook | None = None, source: str = ""):
        super().__init__()
        lacking = [name for name in ("encode", "decode") if not callable(getattr(module, name, 0))]
        if lacking:
            raise TypeError(f"{type(module).__name__} has no {' and no '.join(lacking)}; {CURE}")
        self.module, self.d_in, self.hook, self.source = module, d_in, hook, source
        self.register_buffer("scale", torch.ones(()))
        with torch.no_grad():
            z = self.encode(torch.zeros(2, d_in))
            x_hat = self.decode(z)
        if z.ndim != 2 or len(z) != 2 or x_hat.shape != (2, d_in):
            raise ValueError(
                f"{self.name} encodes x [2, {d_in}] to {list(z.shape)} and decodes that to "
                f"{list(x_hat.shape)}; {CURE}"
            )
        self.n_latents = z.shape[1]
        # of the weights at one time: every evaluation asks for them many times
        self._directions: tuple[object, Tensor] | None = None
        self.blocks: Mapping[str, range] = {}
        self.meta: Mapping[str, Any] = {}

    @property
    def name(self) -> str:
        """The class of the module."""
        return type(self.module).__name__

    def config(self) -> dict[str, Any]:
        """What, beside its sizes, tensors and source, says what it is."""
        return {"activation": KIND, "class": self.name}

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "module":  # before it is there
                raise
            return getattr(self.module, name)

    @property
    def directions(self) -> Tensor:
        """What a unit of each latent adds to the reconstruction, `[L, D]`: decode(1_j) -
        decode(0).
        """
        weights = self.state_dict().values()
        version = tuple((weight.data_ptr(), weight._version) for weight in weights)
        if self._directions is None or self._directions[0] != version:
            self._directions = version, self._read_directions()
        return self._directions[1]

    @torch.no_grad()
    def _read_directions(self) -> Tensor:
        device = self.scale.device
        origin = self.decode(torch.zeros(1, self.n_latents, device=device))
        pieces = torch.arange(self.n_latents, device=device).split(ROWS_AT_ONCE)
        rows = [
            self.decode(nn.functional.one_hot(piece, self.n_latents).float()) - origin
            for piece in pieces
        ]
        return torch.cat(rows)

    def codes(
        self, x: Tensor, progress: float | None = None, among: object = None
    ) -> tuple[Tensor, Tensor]:
        """The codes `[N, L]`, twice: the module has no pre-activations, and codes alike in training
        and after it.
        """
        del progress, among
        z = self.encode(x)
        return z, z

    def encode(self, x: Tensor) -> Tensor:
        """Codes `[..., L]` of activations `[..., D]`. Raises `ValueError` for negative ones."""
        z = cast(Any, self.module).encode(x.flatten(0, -2) * self.scale) / self.scale
        if not isinstance(z, Tensor) or bool((z < 0).any()):
            what = "negative codes" if isinstance(z, Tensor) else f"a {type(z).__name__}"
            raise ValueError(
                f"encode of {self.name} gave {what}; a code says how active a latent is: return a "
                "tensor of numbers that are at least 0, after a relu for instance"
            )
        return z.unflatten(0, x.shape[:-1])

    def decode(self, z: Tensor) -> Tensor:
        """Reconstruction `[..., D]` of codes `[..., L]`."""
        x_hat = cast(Any, self.module).decode(z.flatten(0, -2) * self.scale) / self.scale
        return x_hat.unflatten(0, z.shape[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruction of x."""
        return self.decode(self.encode(x))

    def start_at_(self, mean: Tensor) -> None:
        """Nothing: where a module starts is its own affair."""

    def project_gradient_(self) -> None:
        """Nothing: no norm is asked of the module's weights."""

    def project_(self) -> None:
        """Nothing, as above."""

    @torch.no_grad()
    def fold_scale_(self, scale: float) -> None:
        """From now on `encode` and `decode` work in the model's own units."""
        self.scale.mul_(scale)


def module_from(folder: Path, d_in: int) -> nn.Module:
    """Run the source text in an SAE folder and return what its `build(d_in)` makes.

    It is code that somebody wrote: call this only when the user has asked for it. Raises
    `ValueError` when the text has no `build`.
    """
    path = Path(folder) / CODE
    names: dict[str, Any] = {"__name__": "saelab_own", "__file__": str(path)}
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), names)
    if not callable(names.get("build")):
        raise ValueError(f"{path} has no function build(d_in), which makes the SAE")
    return names["build"](d_in)
