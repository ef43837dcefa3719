#!/usr/bin/env bash
# transformers 5.24 renamed the argument `past_key_values` of models' forward to `cache`.
#
# Surprise: the old name is gone from the signature, so code that passes only what
# `inspect.signature(model.forward)` lists drops the cache without a word; it is still taken by a
# decorator, and warns even where it is given as None. The output's entry is renamed as well: a loop
# over its keys no longer meets `past_key_values`, though the attribute still answers. In 5.0.0 it is
# the other way round. A library that spans both must ask the signature for either name.
#
# Versions: transformers 5.24.0 and 5.0.0, torch 2.13.0 (CPU).
# Source: https://github.com/huggingface/transformers (utils/deprecation.py, deprecate_kwarg)
# Date: 2026-11-30. Output seen:
#   5.24.0 in signature: old False, new True | warnings for None: 1 | output keys: logits cache
#   5.0.0 in signature: old True, new False | warnings for None: 0 | output keys: logits past_key_values
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/look.py" <<'PYTHON'
import inspect
import sys
import warnings

import torch
import transformers

config = transformers.GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=32, n_positions=32, bos_token_id=0, eos_token_id=1)
model = transformers.GPT2LMHeadModel(config).eval()
names = inspect.signature(model.forward).parameters
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    output = model(input_ids=torch.arange(1, 6)[None], use_cache=True, past_key_values=None)
count = sum(issubclass(warning.category, FutureWarning) for warning in caught)
old, new = "past_key_values" in names, "cache" in names
keys = " ".join(output.keys())
print(f"{transformers.__version__} in signature: old {old}, new {new} | warnings for None: {count} | output keys: {keys}")
expected = {
    "5.24.0": (False, True, 1, "logits cache"),
    "5.0.0": (True, False, 0, "logits past_key_values"),
}[transformers.__version__]
sys.exit((old, new, count, keys) != expected)
PYTHON
for version in 5.24.0 5.0.0; do
  python3 -m venv "$folder/$version"
  "$folder/$version/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 "transformers==$version" 2>/dev/null
  "$folder/$version/bin/python" "$folder/look.py" 2>/dev/null
done
echo "unchanged"
