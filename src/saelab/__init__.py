"""saelab trains, verifies and compares sparse autoencoders on language-model activations."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saelab.types import Hook, Optim, Run, Score, Source, Spec

__version__ = "0.1.0"

# Public name -> where it lives. Loaded on first use, so that `import saelab` stays light.
_HOMES = dict.fromkeys(("Hook", "Optim", "Run", "Score", "Source", "Spec"), "saelab.types")
__all__ = ["Hook", "Optim", "Run", "Score", "Source", "Spec", "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'saelab' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)
