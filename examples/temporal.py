"""Temporal, as an edit of `experiment.py`: the first quarter of the latents changes slowly.

The term reads windows, tokens in order: from a shuffled batch it could not be computed, and saelab
says so instead of training it on noise.
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


n_slow, weight = dict_size // 4, 0.05


def change(step: Step) -> Tensor:
    """Squared change of the slow codes from one token to the next, over their mean square."""
    part = step.side("windows")
    z = part.in_windows(part.z)[..., :n_slow]  # [B, T, S], tokens in order
    windows = part.windows
    same = windows.doc[:, 1:] == windows.doc[:, :-1]
    beside = (windows.keep[:, 1:] & windows.keep[:, :-1] & same).unsqueeze(-1)
    moved = ((z[:, 1:] - z[:, :-1]).square() * beside).sum()
    return moved / z.square().sum().clamp_min(1e-6)


def build(d_in: int) -> Variant:
    """BatchTopK with the change of slow codes as a second term, and windows beside its tokens."""
    base = batch_topk(d_in, dict_size, l0=l0 or 32)
    return replace(
        base,
        objective=Objective(*base.objective.terms, Term("change", change, weight)),
        batches={"main": Tokens, "windows": Windows},
    )


if __name__ == "__main__":
    from saelab.console import listener, open_console
    from saelab.experiments.script.bench import run_script
    from saelab.report import write_report
    from saelab.threads import use_threads

    use_threads()
    folder = run_script(globals(), listener(open_console()))
    print(f"results  {folder / 'final_info.json'}\nreport   {write_report(folder)}")
