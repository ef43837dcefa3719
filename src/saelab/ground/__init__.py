"""Where activations come from: a model's stream on a text, a cache on disk, a synthetic world."""
