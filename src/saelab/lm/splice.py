"""Forward hooks on one module, each removed when its block ends."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from saelab.types import Hook


@contextmanager
def reading(module: nn.Module, hook: Hook, see: Callable[[Tensor], None]) -> Iterator[None]:
    """`see` gets the module's output, or for `resid_pre` its input."""
    if hook.site == "resid_pre":

        def before(module: nn.Module, args: Any, kwargs: Any) -> None:
            see(args[0] if args else kwargs["hidden_states"])

        handle = module.register_forward_pre_hook(before, with_kwargs=True)
    else:

        def after(module: nn.Module, args: Any, output: Any) -> None:
            see(output[0] if isinstance(output, tuple) else output)

        handle = module.register_forward_hook(after)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def feeding(module: nn.Module, x: Tensor) -> Iterator[None]:
    """The module runs on `x` instead of the stream it is given."""

    def before(module: nn.Module, args: Any, kwargs: Any) -> Any:
        return ((x, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": x})

    handle = module.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def replacing(module: nn.Module, x: Tensor) -> Iterator[None]:
    """The module's output is `x`."""
    handle = module.register_forward_hook(
        lambda _, args, output: (x, *output[1:]) if isinstance(output, tuple) else x
    )
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def passing(block: nn.Module, x: Tensor, as_tuple: bool) -> Iterator[None]:
    """The block computes nothing and returns `x`."""
    block.forward = lambda *args, **kwargs: (x,) if as_tuple else x
    try:
        yield
    finally:
        del block.forward
