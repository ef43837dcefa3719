"""Batteries that every variant and every source must pass, importable by other projects."""
