"""Activations of a few texts of one's own, read and masked as in training."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from saelab.lm.model import HFModel
from saelab.text.windows import hygiene, special_ids, start_token
from saelab.types import Windows


def read_texts(
    lm: HFModel, texts: Sequence[str], *, context: int = 128, batch: int = 32
) -> Windows:
    """Activations of `texts` at the model's hook, as an SAE was trained to see them.

    Each text is cut into windows of `context` tokens that begin as in training, with the model's
    BOS (or EOS, where it has no BOS); `doc` is the number of the text. `keep` is False for BOS, EOS
    and what fills a window up: their activations are unlike all others, so take
    `sae.encode(windows.flat)`, or `sae.encode(windows.x)` and leave the others out. Raises
    `ValueError` for a text without a token and for a context below 2.
    """
    start, start_id = start_token(lm.tokenizer)
    room = context - (start != "none")
    if isinstance(texts, str) or room < 1:
        given = "one string" if isinstance(texts, str) else f"a context of {context}"
        raise ValueError(f"given {given}; give a list of texts and a context of at least 2")
    rows, docs = [], []
    for number, text in enumerate(texts):
        ids = lm.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        if not ids:
            raise ValueError(f"text {number} has no token: {text!r}")
        for at in range(0, len(ids), room):
            row = ids[at : at + room]
            rows.append(torch.tensor(row if start_id is None else [start_id, *row]))
            docs.append(number)
    if not rows:
        raise ValueError("there are no texts; give at least one")
    tokens = pad_sequence(rows, batch_first=True, padding_value=start_id or 0)  # [B, T]
    _, keep = hygiene(tokens.numpy(), special_ids(lm.tokenizer))
    length = np.array([len(row) for row in rows])
    keep &= np.arange(tokens.shape[1]) < length[:, None]
    x = torch.cat([lm.capture(part)[0] for part in tokens.split(batch)])
    doc = torch.tensor(docs).unsqueeze(1).expand_as(tokens)
    pos = torch.arange(tokens.shape[1]).expand_as(tokens)
    device = x.device
    return Windows(
        x, tokens.to(device), doc.to(device), pos.to(device), torch.from_numpy(keep).to(device)
    )
