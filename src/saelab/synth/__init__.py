"""Synthetic worlds: activations whose true features are known."""
