"""SAE modules: one class, its activations, its folder."""
