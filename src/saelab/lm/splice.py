"""Changes of one module's forward, each undone when its `with` block ends."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from saelab.types import Hook


def reading(module: nn.Module, hook: Hook, see: Callable[[Tensor], None]) -> RemovableHandle:
    """`see` gets the module's output, or for `resid_pre` its input."""

    def before(module: nn.Module, args: Any, kwargs: Any) -> None:
        see(args[0] if args else kwargs["hidden_states"])

    def after(module: nn.Module, args: Any, output: Any) -> None:
        see(output[0] if isinstance(output, tuple) else output)

    if hook.site == "resid_pre":
        return module.register_forward_pre_hook(before, with_kwargs=True)
    return module.register_forward_hook(after)


def feeding(module: nn.Module, x: Tensor) -> RemovableHandle:
    """The module runs on `x` instead of the stream it is given."""

    def before(module: nn.Module, args: Any, kwargs: Any) -> Any:
        return ((x, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": x})

    return module.register_forward_pre_hook(before, with_kwargs=True)


def replacing(module: nn.Module, x: Tensor) -> RemovableHandle:
    """The module's output is `x`."""
    return module.register_forward_hook(
        lambda _, args, output: (x, *output[1:]) if isinstance(output, tuple) else x
    )


@contextmanager
def passing(block: nn.Module, x: Tensor, as_tuple: bool) -> Iterator[None]:
    """The block computes nothing and returns `x`."""
    block.forward = lambda *args, **kwargs: (x,) if as_tuple else x
    try:
        yield
    finally:
        del block.forward
