"""How well a few latents of one token predict the activation some tokens later."""
