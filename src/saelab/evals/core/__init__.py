"""Core: sparsity, reconstruction, and what the model loses when the reconstruction is put in."""
