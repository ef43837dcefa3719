"""Tables of rows on a world, and the search for their learning rates."""
