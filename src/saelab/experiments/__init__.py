"""A plan becomes run folders: train, evaluate, compare."""
