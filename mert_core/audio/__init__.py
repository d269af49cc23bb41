"""Audio: decoding, resampling, the frame grid, PCM shards, and the constant-Q transform. Import the submodules."""
