"""Labels of tokens: from Python's grammar, from files; sets of labelled tokens for probes."""
