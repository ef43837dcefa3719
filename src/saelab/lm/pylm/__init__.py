"""The embedded language model: its weights, and the script that trained it."""
