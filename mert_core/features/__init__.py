"""Spectral features of a waveform on the student's frame grid: constant-Q, mel, chroma, cepstrum, beats."""
