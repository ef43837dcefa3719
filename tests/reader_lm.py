"""A model in which one direction decides the next token and another only goes along with it, and a
labelled text on which it does.
"""

import numpy as np
import torch
from torch import Tensor

from helpers import byte_tokenizer
from saelab.ground.held_out import HeldOut
from saelab.runs import Source
from saelab.testing.fakes import FakeModel
from saelab.text.labels.labelled import (
    Family,
    LabelledCorpus,
    LabelledText,
    TokenLabels,
    label_tokens,
    labelled_windows,
)
from saelab.types import Hook, LanguageModel, Windows

TOKENIZER = byte_tokenizer()
V, D = len(TOKENIZER), 24
DECIDED = torch.tensor(TOKENIZER.convert_tokens_to_ids(["x", "y"]))
UPPER = torch.tensor(TOKENIZER.convert_tokens_to_ids(list("ABCD")))
TRUE, COPY = 0, 1  # dimensions: the one that the model reads, and one that is always equal to it


class Reader(FakeModel):
    """Logits are 0 but for x and y, where they are `weight` times the first dimension: positive on
    upper case only.
    """

    def __init__(self, weight: float = 2.0):
        self.weight = weight
        super().__init__(Hook(0), D, self._embedded, self._logits)

    def _embedded(self, tokens: Tensor) -> Tensor:
        seed = tokens * 7.3 + torch.arange(tokens.shape[1]) * 1.7
        # half of the dimensions are active
        x = torch.sin(seed.unsqueeze(-1) * (1 + torch.arange(D)))
        strength = torch.isin(tokens, UPPER) * (1 + 0.5 * torch.cos(seed))
        x[..., TRUE] = x[..., COPY] = strength
        return x

    def _logits(self, x: Tensor, since: int) -> Tensor:
        x = x[:, since:]
        logits = torch.zeros(*x.shape[:2], V)
        logits[..., DECIDED] = self.weight * x[..., [TRUE]]
        return logits

    def log_mass(self, value: Tensor) -> Tensor:
        odds = len(DECIDED) * (self.weight * value).exp()
        return (odds / (odds + V - len(DECIDED))).log()


def corpus(*, shuffled: bool = False) -> LabelledCorpus:
    """12 files: after upper case mostly x or y. `case` says upper, `coin` nothing."""
    generator = np.random.default_rng(3)
    texts = []
    for i in range(12):
        letters = [*generator.choice(list("abcdefghABCD"), 240)]
        for t in range(1, 240):
            if letters[t - 1].isupper() and generator.random() < 0.7:
                letters[t] = generator.choice(["x", "y"])
            elif generator.random() < 0.02:
                letters[t] = "x"
        labels = np.stack([np.char.isupper(letters), generator.random(240) < 0.5], 1).astype(
            np.int16
        )
        if shuffled:
            generator.shuffle(labels)
        texts.append(LabelledText(f"file {i}", "".join(letters), labels))
    return LabelledCorpus(
        (Family("case", ("no", "yes")), Family("coin", ("none", "heads"))), tuple(texts)
    )


def labelled_windows_of(lm, labelled: LabelledCorpus) -> tuple[HeldOut, TokenLabels]:
    """The text's windows as the model sees them, and their labels."""
    assert isinstance(lm, LanguageModel)
    labels = label_tokens(labelled, TOKENIZER)
    shown = labelled_windows(labels, TOKENIZER, context=41)
    x, state = lm.capture(shown.tokens.long())
    batches = [(Windows(x, shown.tokens.long(), shown.doc, shown.pos, shown.keep), state)]
    return HeldOut(Source(), lm, batches, shown), labels
