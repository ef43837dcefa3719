"""Adversarial, as an edit of `experiment.py`: most latents must not tell a label.

A probe learns to read the label from all latents but the first 16, and the gradient that comes back
from it is reversed (Ganin and Lempitsky 2015, 1409.7495). It reads labels, which the embedded text
has; the probe is a module, so it trains along.
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

from torch import Tensor, nn

from saelab.terms.base import Objective, Step, Term, Variant
from saelab.types import Labelled, Tokens
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


n_bank, weight = 16, 0.05  # latents that may tell the label
column = 0  # which of the labels that the text has


class Adversary(nn.Module):
    """A linear probe of the label on the codes outside the bank, and its reversed gradient."""

    def __init__(self):
        super().__init__()
        self.probe = nn.Linear(dict_size - n_bank, 2)

    def forward(self, step: Step) -> Tensor:
        """Cross-entropy of the probe, nats: it falls for the probe and rises for the SAE."""
        part = step.side("labels")
        batch = part.batch
        assert isinstance(batch, Labelled)
        label = (batch.labels[:, column] > 0).long()
        z = part.z[:, n_bank:]
        reversed_z = 2 * z.detach() - z  # the value of z, the gradient of -z
        return nn.functional.cross_entropy(self.probe(reversed_z), label)


def build(d_in: int) -> Variant:
    """BatchTopK with the adversary as a second term, and labelled tokens beside its own."""
    base = batch_topk(d_in, dict_size, l0=l0 or 32)
    return replace(
        base,
        objective=Objective(*base.objective.terms, Term("adversary", Adversary(), weight)),
        batches={"main": Tokens, "labels": Labelled},
    )


if __name__ == "__main__":
    from saelab.console import listener, open_console
    from saelab.experiments.script.bench import run_script
    from saelab.report import write_report
    from saelab.threads import use_threads

    use_threads()
    folder = run_script(globals(), listener(open_console()))
    print(f"results  {folder / 'final_info.json'}\nreport   {write_report(folder)}")
