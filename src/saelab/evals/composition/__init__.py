"""Composition: parents, children and the edges between them."""
