"""Causal, as an edit of `experiment.py`: errors count by what they do to the predictions.

On a tenth of the windows the model goes on from the reconstruction, and the divergence of its
predictions joins the loss. saelab's own form of the idea: docs/variants/causal.md.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path

try:
    from saelab.experiments.script.start import start
except ModuleNotFoundError:
    folders = Path(__file__).resolve().parents[:2]  # the second one for a script in examples
    beside = [python for folder in folders if (python := folder / ".venv/bin/python").exists()]
    if beside and "SAELAB_REEXEC" not in os.environ:
        os.environ["SAELAB_REEXEC"] = "1"
        os.execv(beside[0], [str(beside[0]), *sys.argv])
    sys.stderr.write("saelab is not installed for this Python; run `make demo` once, then again\n")
    sys.exit(2)

start()  # before torch loads: how threads wait, and what Ctrl-C does meanwhile

import torch
from torch import Tensor

from saelab.terms.base import Objective, Step, Term, Variant
from saelab.types import Tokens, Windows
from saelab.variants.baselines import batch_topk

# Constants ----------------------------------------------------------------------------------------

model_name = "pylm"  # the embedded model, a local folder, or a Hugging Face id
corpus = "stdlib"  # the embedded text, a .txt / .jsonl / .parquet file, or hf:<dataset>
layers = [1]  # one experiment per layer, at the residual stream after it
dict_size = 1_024
num_tokens = 400_000
context_length = 128
learning_rate: float | None = None  # None: derived from dict_size and the number of steps
l0: float | None = 32  # latents active per token ...
# ... or the coefficient of an L1 penalty; the other one is None
sparsity_penalty: float | None = None
warmup_steps = 50
buffer_size = 65_536  # activations shuffled together
sae_batch_size = 1_024
llm_batch_size = 32
eval_types = ["core"]
seeds = [0, 1]


# The idea -----------------------------------------------------------------------------------------


share, weight = 0.1, 2.0  # of the windows that the model goes on from; of the divergence


def divergence(step: Step) -> Tensor:
    """KL of the predictions from the clean to the reconstructed activations, nats per token."""
    part = step.on_windows(share)
    windows, model = part.windows, step.lm
    assert model is not None  # the variant says lm=True
    x_hat = part.in_windows(part.x_hat) / step.scale  # [B, T, D], in the model's own units
    spliced = torch.where(windows.keep.unsqueeze(-1), x_hat, windows.x)
    _, state = model.capture(windows.tokens)
    with torch.no_grad():
        clean = model.resume(windows.x, state).log_softmax(-1)  # [B, T, V]
    changed = model.resume(spliced, state).log_softmax(-1)
    return (clean.exp() * (clean - changed)).sum(-1)[windows.keep].mean()


def build(d_in: int) -> Variant:
    """BatchTopK with the divergence as a second term; it reads the model and windows in order."""
    base = batch_topk(d_in, dict_size, l0=l0 or 32)
    return replace(
        base,
        objective=Objective(*base.objective.terms, Term("divergence", divergence, weight)),
        batches={"main": Tokens, "windows": Windows},
        lm=True,
    )


if __name__ == "__main__":
    from saelab.console import listener, open_console
    from saelab.experiments.script.bench import run_script
    from saelab.report import write_report
    from saelab.threads import use_threads

    use_threads()
    folder = run_script(globals(), listener(open_console()))
    print(f"results  {folder / 'final_info.json'}\nreport   {write_report(folder)}")
