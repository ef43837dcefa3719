"""What a change of activations does to predictions: gradients, Fisher metric, changed latents."""
