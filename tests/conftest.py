"""One thread per worker: pytest runs several, and small tensors lose far more to the threads' waiting than they win."""

import torch

torch.set_num_threads(1)
