"""Contrastive, as an edit of `experiment.py`: stretches of one document have similar codes.

InfoNCE (van den Oord et al. 2018, 1807.03748) on the mean codes of two stretches: the second one of
a pair must be told from the second ones of all other pairs. It reads pairs.
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
from saelab.types import Pairs, Tokens
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


weight, temperature = 0.05, 0.1


def info_nce(step: Step) -> Tensor:
    """Cross-entropy of finding the stretch of the same document, nats."""
    part = step.side("pairs")
    pairs = part.batch
    assert isinstance(pairs, Pairs)
    z = part.in_windows(part.z).mean(2)  # [2, B, L], mean codes of every stretch
    first, second = torch.nn.functional.normalize(z, dim=-1)
    scores = first @ second.T / temperature  # [B, B]
    same = (pairs.kind == 0).nonzero().squeeze(1)  # the others are of two documents
    return torch.nn.functional.cross_entropy(scores[same], same)


def build(d_in: int) -> Variant:
    """BatchTopK with InfoNCE as a second term, and pairs of stretches beside its tokens."""
    base = batch_topk(d_in, dict_size, l0=l0 or 32)
    return replace(
        base,
        objective=Objective(*base.objective.terms, Term("info_nce", info_nce, weight)),
        batches={"main": Tokens, "pairs": Pairs},
    )


if __name__ == "__main__":
    from saelab.console import listener, open_console
    from saelab.experiments.script.bench import run_script
    from saelab.report import write_report
    from saelab.threads import use_threads

    use_threads()
    folder = run_script(globals(), listener(open_console()))
    print(f"results  {folder / 'final_info.json'}\nreport   {write_report(folder)}")
