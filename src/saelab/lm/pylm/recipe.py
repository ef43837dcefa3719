"""How the embedded language model `pylm` is trained: architecture, tokenizer, data order,
optimizers, schedule.

Llama architecture, byte-level BPE, Muon (https://kellerjordan.github.io/posts/muon/, as in
`torch.optim.Muon`) on the matrices and AdamW on embedding and norms, warm-up, constant, then linear
decay.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from saelab.text.stdlib import SourceFile

BOS = "<|bos|>"


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, apart from the corpus."""

    steps: int = 6_144
    sequences: int = 16  # windows per step
    context: int = 256
    vocab: int = 4_096
    width: int = 256
    layers: int = 4
    lr_muon: float = 0.02
    lr_adam: float = 0.01
    weight_decay: float = 0.05  # Muon only; without it the residual stream's scale drifts
    warmup: int = 50
    decay: float = 0.6  # last share of the steps, linear to 0
    seed: int = 0

    @property
    def tokens(self) -> int:
        """Tokens seen in training."""
        return self.steps * self.sequences * self.context

    def scale(self, step: int) -> float:
        """Learning-rate factor at `step`, in (0, 1]."""
        remaining = (self.steps - step) / max(1.0, self.steps * self.decay)
        return min(1.0, (step + 1) / self.warmup, remaining)

    def as_dict(self) -> dict[str, int | float]:
        """The fields, for the card and the checkpoint."""
        return asdict(self)


def build_model(recipe: Recipe) -> LlamaForCausalLM:
    """A freshly initialised Llama of the recipe's size (tied embeddings)."""
    torch.manual_seed(recipe.seed)
    heads = recipe.width // 64
    config = LlamaConfig(
        vocab_size=recipe.vocab,
        hidden_size=recipe.width,
        intermediate_size=round(recipe.width * 8 / 3 / 16) * 16,
        num_hidden_layers=recipe.layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        initializer_range=0.02,
        use_cache=False,
    )
    return LlamaForCausalLM(config)


def train_tokenizer(files: tuple[SourceFile, ...], vocab: int) -> Tokenizer:
    """Byte-level BPE with plain GPT-2 pre-tokenisation; one special token, BOS, id 0."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[BOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((file.text for file in files), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, 0)]
    )
    return tokenizer


def encode_files(tokenizer: Tokenizer, files: tuple[SourceFile, ...]) -> list[np.ndarray]:
    """Token ids of each file, without BOS."""
    encoded = tokenizer.encode_batch([file.text for file in files], add_special_tokens=False)
    return [np.array(item.ids, dtype=np.uint16) for item in encoded]


class Batches:
    """Training batches by step number: any step can be asked for, so a resumed run reads what it
    would have read.

    An epoch joins the files in a fresh random order, each after a BOS, cuts windows at a random
    offset, puts BOS in front of each window and shuffles them.
    """

    def __init__(self, files: list[np.ndarray], recipe: Recipe):
        self.files, self.recipe = files, recipe
        self.stride = recipe.context - 1
        joined = sum(len(file) + 1 for file in files)
        # batches, whatever the offset
        self.per_epoch = (joined - self.stride) // self.stride // recipe.sequences
        if self.per_epoch < 1:
            raise ValueError(
                f"{joined} tokens are fewer than one batch of {recipe.sequences} x {recipe.context}"
            )

    def __call__(self, first_step: int) -> Iterator[torch.Tensor]:
        """Token ids `[sequences, context]` from `first_step` on, without end."""
        epoch, skip = divmod(first_step, self.per_epoch)
        while True:
            windows = self._windows(epoch)
            for i in range(skip, self.per_epoch):
                batch = windows[i * self.recipe.sequences : (i + 1) * self.recipe.sequences]
                # BOS is id 0
                yield torch.from_numpy(np.pad(batch, ((0, 0), (1, 0))).astype(np.int64))
            epoch, skip = epoch + 1, 0

    def _windows(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng([self.recipe.seed, epoch])
        bos = np.zeros(1, np.uint16)
        joined = np.concatenate(
            [ids for i in rng.permutation(len(self.files)) for ids in (bos, self.files[i])]
        )
        start = rng.integers(self.stride)
        count = (len(joined) - start) // self.stride
        windows = joined[start : start + count * self.stride].reshape(count, self.stride)
        return windows[rng.permutation(count)]


def build_optimizers(model: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the transformer's matrices, AdamW for embedding and norms."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = [p for name, p in named if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in named if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=recipe.lr_muon, weight_decay=recipe.weight_decay),
        torch.optim.AdamW(
            others, lr=recipe.lr_adam, betas=(0.9, 0.95), weight_decay=0.0, fused=True
        ),
    ]
