"""How much of a spurious concept is left when a few latents are removed?"""
