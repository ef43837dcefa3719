"""Other people's formats, and nowhere else."""
