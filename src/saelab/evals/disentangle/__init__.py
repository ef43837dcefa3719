"""Disentangling: is each factor of variation in latents of its own?"""
