"""What `experiment.py` does: a dry run, a plan from one file, its two result files."""
