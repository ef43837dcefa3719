"""Hierarchical, as an edit of `experiment.py`: coarse latents first, fine ones for what they leave.

An SAE class of one's own: any module with `encode` and `decode` is trained on its `loss`, saved
with its source text, and evaluated by its own `encode` and `decode`.
"""

import os
import sys
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
from torch import Tensor, nn

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


n_coarse, k_coarse, k_fine = 128, 8, 24


class TwoLevels(nn.Module):
    """Coarse codes reconstruct x, fine codes what the coarse ones leave."""

    def __init__(self, d_in: int):
        super().__init__()
        self.W_dec = nn.Parameter(nn.functional.normalize(torch.randn(dict_size, d_in), dim=1))
        self.W_enc = nn.Parameter(self.W_dec.detach().T.clone())  # [D, L]
        self.b_dec = nn.Parameter(torch.zeros(d_in))

    def encode(self, x: Tensor) -> Tensor:
        """Codes [N, L], the coarse latents before the fine ones."""
        left = x - self.b_dec
        coarse = top(left @ self.W_enc[:, :n_coarse], k_coarse)
        left = left - coarse @ self.W_dec[:n_coarse]
        return torch.cat([coarse, top(left @ self.W_enc[:, n_coarse:], k_fine)], 1)

    def decode(self, z: Tensor) -> Tensor:
        """Reconstruction [N, D]."""
        return z @ self.W_dec + self.b_dec

    def loss(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Squared error of both levels together and of the coarse one alone."""
        z = self.encode(x)
        both = (x - self.decode(z)).square().sum(1).mean()
        coarse = x - self.b_dec - z[:, :n_coarse] @ self.W_dec[:n_coarse]
        alone = coarse.square().sum(1).mean()
        return both + 0.5 * alone, {"both": both, "coarse": alone}


def top(pre: Tensor, k: int) -> Tensor:
    """The k largest entries of each row, where they are positive, and 0 elsewhere."""
    values, places = pre.relu().topk(k, dim=1)
    return torch.zeros_like(pre).scatter(1, places, values)


def build(d_in: int) -> nn.Module:
    """The SAE; L0 is `k_coarse + k_fine`, which `l0` above repeats."""
    return TwoLevels(d_in)


if __name__ == "__main__":
    from saelab.console import listener, open_console
    from saelab.experiments.script.bench import run_script
    from saelab.report import write_report
    from saelab.threads import use_threads

    use_threads()
    folder = run_script(globals(), listener(open_console()))
    print(f"results  {folder / 'final_info.json'}\nreport   {write_report(folder)}")
