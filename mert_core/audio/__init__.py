"""Audio files: decoding and resampling, what can be wrong with a file, the frame grid, and degradations."""
