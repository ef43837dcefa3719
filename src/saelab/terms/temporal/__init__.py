"""Terms that ask of a block of latents, the slow one, that it persists along the text."""
