"""The student: front end, encoder, heads, sizes, checkpoints, export and import. Import the modules."""
