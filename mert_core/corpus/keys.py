"""The 24 major and minor keys, by index."""

from __future__ import annotations

TONICS = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
KEYS = tuple(f"{tonic} {mode}" for mode in ("major", "minor") for tonic in TONICS)
"""The 24 key classes by index: 0–11 major from C to B, 12–23 minor; spelled as mir_eval reads them."""
