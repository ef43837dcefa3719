"""Evaluation of SAEs that are trained, and of SAEs on disk."""
