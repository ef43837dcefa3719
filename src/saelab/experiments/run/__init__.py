"""Carrying out a plan: what is missing is trained in groups that share one stream."""
