"""One SAE in training: weights, optimizer, counters, randomness, and what a step does to them."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from saelab.runs import Run
from saelab.terms.base import Step, Variant
from saelab.train.health import NonFiniteTraining
from saelab.train.optim import (
    build_optimizer,
    first_of_last,
    learning_rate,
    load_optimizer,
    lr_factor,
    optimizer_tensors,
    take_step,
)
from saelab.types import LanguageModel, Views

# activations without firing (Gao et al. 2024, 2406.04093, A.2); in a short run a tenth of it
DEAD_AFTER = 10_000_000


@dataclass(frozen=True)
class Record:
    """Health record of one run at one step."""

    run: int
    step: int
    tokens: int
    loss: float
    losses: dict[str, float]
    l0: float
    explained_variance: float  # against the stream's mean
    dead: float  # share of latents
    lr: float
    coefficient: float | None


class Member:
    """One run of a lock-step group. fp32 weights; autocast only where `Optim.amp` asks for it."""

    def __init__(
        self,
        index: int,
        run: Run,
        variant: Variant,
        mean: Tensor,
        scale: float,
        lm: LanguageModel | None = None,
    ):
        self.index, self.run, self.variant = index, run, variant
        self.lm = lm if variant.lm else None
        self.stats: Mapping[str, Tensor] = {}  # what the variant needs, before the first step
        self.mean, self.scale = mean * scale, scale  # mean of the scaled activations
        device = mean.device
        self.sae, self.objective = variant.sae.to(device), variant.objective.to(device)
        self.sae.start_at_(self.mean)
        self.optimizer = build_optimizer([self.sae, self.objective], run)
        self.generator = torch.Generator().manual_seed(run.seed)
        # activations since last firing
        self.quiet = torch.zeros(self.sae.n_latents, dtype=torch.int64, device=device)
        given = run.optim.dead_after
        self.dead_after = min(DEAD_AFTER, run.source.tokens // 10) if given is None else given

    @property
    def dead(self) -> Tensor:
        """Latents that have not fired for `dead_after` activations, `[L]`."""
        return self.quiet >= self.dead_after

    def step(self, views: Views, step: int, steps: int, *, record: bool) -> Record | None:
        """One training step on what the variant reads of `views`; a `Record` when asked for.

        Raises `NonFiniteTraining`.
        """
        if step == first_of_last(steps, self.variant.restart):
            # moments of another objective's gradients would make its first steps far too large
            self.optimizer.state.clear()
        seen = self._forward(views, step / steps)
        loss, losses = self.objective(seen)
        if not torch.isfinite(loss):
            what = f"the loss became {loss.item()} at step {step + 1}"
            raise self._broken(what, self._origin(seen, losses))
        loss.backward()
        self.sae.project_gradient_()
        optim = self.run.optim
        restart = self.variant.restart, self.variant.restart_rate
        lr = learning_rate(self.run) * lr_factor(optim, step, steps, *restart)
        take_step(self.optimizer, lr, optim.clip)
        self.optimizer.zero_grad(set_to_none=True)
        self.sae.project_()
        self._count(seen)
        for event in self.variant.events:
            if any(max(1, round(at * steps)) == step + 1 for at in event.at):
                order = event.fn(self.sae, self.optimizer, seen)
                if order is None:
                    self.quiet.zero_()
                else:
                    self.quiet, seen = self.quiet[order], seen.reordered(order)
        return self._record(seen, step + 1, loss.item(), losses, lr) if record else None

    def _broken(self, what: str, why: str = "lower the learning rate") -> NonFiniteTraining:
        name = f"{self.run.spec.name}, seed {self.run.seed}"
        return NonFiniteTraining(f"{name}: {what}; {why}", self.index)

    def _forward(self, views: Views, progress: float) -> Step:
        sae = self.sae
        x = views.main.flat.to(self.mean.dtype) * self.scale
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.run.optim.amp == "bf16"):
            pre, z = sae.codes(x, progress)
            x_hat = sae.decode(z)
        batches = {
            name: views.main if name == "main" else views.sides[kind]
            for name, kind in self.variant.batches.items()
        }
        randomness, more = self.generator, (self.scale, self.lm, self.stats)
        x_hat = x_hat.to(x.dtype)
        return Step(sae, batches, x, pre, z, x_hat, self.dead, progress, randomness, *more)

    def _origin(self, seen: Step, losses: Mapping[str, Tensor]) -> str:
        """What was not finite first, in the order in which a step computes it, and what to do."""
        if not seen.x.isfinite().all():
            return "the activations themselves are not finite; look at the model and its precision"
        largest = 0.0
        for name, tensor in [*self.sae.named_parameters(), *self.objective.named_parameters()]:
            if not tensor.isfinite().all():
                return f"{name} was not finite before it; lower the learning rate"
            largest = max(largest, float(tensor.detach().abs().max()))
        for name, tensor in (("codes z", seen.z), ("reconstruction x_hat", seen.x_hat)):
            if not tensor.isfinite().all():
                return (
                    f"the {name} came first, from weights of up to {largest:.3g}; lower the "
                    "learning rate if they grew, else look at encode and decode"
                )
        for name, value in losses.items():
            if not value.isfinite().all():
                return (
                    f"the term {name!r} came first, from finite codes; look for a division by 0, "
                    "or a log or root of what may be 0 or negative, in it"
                )
        return "each term is finite, their weighted sum is not; lower the weights"

    @torch.no_grad()
    def _count(self, seen: Step) -> None:
        self.quiet = torch.where((seen.z > 0).any(0), 0, self.quiet + len(seen.z))

    @torch.no_grad()
    def _record(
        self, seen: Step, step: int, loss: float, losses: dict[str, Tensor], lr: float
    ) -> Record:
        for name, tensor in [*self.sae.named_parameters(), *self.objective.named_parameters()]:
            if not torch.isfinite(tensor).all():
                raise self._broken(f"{name} is no longer finite at step {step}")
        error = (seen.x - seen.x_hat).square().sum()
        return Record(
            run=self.index,
            step=step,
            tokens=step * self.run.source.batch,
            loss=loss,
            losses={name: float(value) for name, value in losses.items()},
            l0=float((seen.z > 0).sum()) / len(seen.z),
            explained_variance=1 - float(error / (seen.x - self.mean).square().sum()),
            dead=float(self.dead.float().mean()),
            lr=lr,
            coefficient=self.objective.coefficient,
        )

    def state(self) -> dict[str, Tensor]:
        """Everything that a resumed run needs, as named tensors."""
        tensors = {f"sae.{name}": t for name, t in self.sae.state_dict().items()}
        tensors |= {f"objective.{name}": t for name, t in self.objective.state_dict().items()}
        tensors |= {f"adam.{name}": t for name, t in optimizer_tensors(self.optimizer).items()}
        return tensors | {"quiet": self.quiet, "generator": self.generator.get_state()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Inverse of `state`."""
        self.sae.load_state_dict(under("sae.", tensors))
        self.objective.load_state_dict(under("objective.", tensors))
        load_optimizer(self.optimizer, under("adam.", tensors))
        self.quiet = tensors["quiet"].to(self.mean.device)
        self.generator.set_state(tensors["generator"].cpu())


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names start with `prefix`, without it."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
