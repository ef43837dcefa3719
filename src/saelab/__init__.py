"""saelab trains, verifies and compares sparse autoencoders on language-model activations.

import saelab

run = saelab.Run(saelab.Spec("batch_topk", n_latents=1024, l0=32), saelab.Source(tokens=300_000))
result = saelab.train_sae(run, "runs/first")
print(result.metrics["explained_variance"].value)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saelab.experiments.api import TrainedRun, train_sae
    from saelab.experiments.evaluate.evaluate import evaluate
    from saelab.experiments.plan import Contrast, Plan
    from saelab.experiments.run.execute import execute
    from saelab.ground.read_texts import read_texts
    from saelab.lm.model import load_model
    from saelab.runs import Optim, Run, Source, Spec
    from saelab.sae.io import load_own_sae, load_sae, save_sae
    from saelab.sae.module import SAE
    from saelab.sae.smoothing import smooth
    from saelab.types import Hook, Score

__version__ = "0.1.0"

# Public name -> where it lives. Loaded on first use, so that `import saelab` stays light.
_HOMES = {
    **dict.fromkeys(("Hook", "Score"), "saelab.types"),
    **dict.fromkeys(("Optim", "Run", "Source", "Spec"), "saelab.runs"),
    **dict.fromkeys(("Contrast", "Plan"), "saelab.experiments.plan"),
    **dict.fromkeys(("TrainedRun", "train_sae"), "saelab.experiments.api"),
    "SAE": "saelab.sae.module",
    "evaluate": "saelab.experiments.evaluate.evaluate",
    "execute": "saelab.experiments.run.execute",
    "load_model": "saelab.lm.model",
    "read_texts": "saelab.ground.read_texts",
    "load_own_sae": "saelab.sae.io",
    "load_sae": "saelab.sae.io",
    "save_sae": "saelab.sae.io",
    "smooth": "saelab.sae.smoothing",
}
__all__ = [
    "SAE",
    "Contrast",
    "Hook",
    "Optim",
    "Plan",
    "Run",
    "Score",
    "Source",
    "Spec",
    "TrainedRun",
    "__version__",
    "evaluate",
    "execute",
    "load_model",
    "load_own_sae",
    "load_sae",
    "read_texts",
    "save_sae",
    "smooth",
    "train_sae",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(
            f"module 'saelab' has no attribute {name!r}; it has {', '.join(__all__)}"
        )
    return getattr(import_module(_HOMES[name]), name)
