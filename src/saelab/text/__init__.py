"""Text: corpora, windows of tokens, the embedded text, labels of tokens."""
