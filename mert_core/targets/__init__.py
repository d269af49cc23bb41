"""Labelling a whole corpus with a teacher, and the gate that its targets must pass."""
