"""One experiment in one file. Edit it, then run `python experiment.py --out_dir=run_1`.

A new idea is an edit of this file and nothing else: change `build`, write a loss term and add it
there, or write an SAE class of your own (`examples` has five such edits). Before the language model
loads, two steps on random activations find undefined names and wrong shapes, and what is saved is
loaded again and compared. Results: final_info.json, report.html and the SAE folders in run_1, and a
block in notes.txt.
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
from saelab.variants.baselines import batch_topk, standard

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

overlap_weight = 0.01  # of the example term below; 0 leaves it out


# The idea -----------------------------------------------------------------------------------------


def overlap(step: Step) -> Tensor:
    """Mean squared cosine between decoder rows of latents that fire in this batch: fewer
    near-copies. In [0, 1].
    """
    firing = (step.z > 0).any(0).nonzero().squeeze(1)
    picked = firing[torch.randperm(len(firing), generator=step.generator)[:256]]
    rows = step.sae.W_dec[picked]  # [n, D], unit norm
    cosines = rows @ rows.T - torch.eye(len(rows), device=rows.device)
    return cosines.square().mean()


def build(d_in: int) -> Variant:
    """The SAE and its loss, for activations of width `d_in`."""
    if l0 is not None:
        base = batch_topk(d_in, dict_size, l0=l0)
    else:
        base = standard(d_in, dict_size, l0=32, coefficient=sparsity_penalty or 0.0)
    return replace(
        base, objective=Objective(*base.objective.terms, Term("overlap", overlap, overlap_weight))
    )


if __name__ == "__main__":
    from saelab.console import listener, open_console
    from saelab.experiments.script.bench import run_script
    from saelab.report import write_report
    from saelab.threads import use_threads

    use_threads()
    folder = run_script(globals(), listener(open_console()))
    print(f"results  {folder / 'final_info.json'}\nreport   {write_report(folder)}")
