"""Any Hugging Face causal language model, read and resumed at one place through plain hooks."""
