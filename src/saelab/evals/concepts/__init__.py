"""Concepts: how well latents tell labels of tokens."""
