"""Results of many runs: rows, means over seeds, judged contrasts, the summary."""
