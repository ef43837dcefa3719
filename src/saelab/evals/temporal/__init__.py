"""Temporal: features that persist, and latents that know the position."""
