"""NCES: what changing one latent does to the model's predictions, beside matched directions."""
