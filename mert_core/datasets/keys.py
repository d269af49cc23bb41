"""The 24 keys: their order, their one spelling, and the others that people write."""

from __future__ import annotations

import re

TONICS = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
KEYS = tuple(f"{tonic} {mode}" for mode in ("major", "minor") for tonic in TONICS)
"""The 24 key classes by index: 0–11 major from C to B, 12–23 minor; spelled as mir_eval reads them."""

_NATURALS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_SIGNS = {"": 0, "#": 1, "♯": 1, "b": -1, "♭": -1}
_WRITTEN = re.compile(r"([A-Ga-g])([#♯b♭]?)\s*[: ]\s*(maj|min)(?:or)?", re.IGNORECASE)


def spell_key(text: str) -> str | None:
    """Return how `KEYS` spells a key: ``Db minor`` and ``c# min`` are ``C# minor``; None: it is not one key."""
    match = _WRITTEN.fullmatch(text.strip())
    if not match:
        return None
    letter, sign, mode = match.groups()
    tonic = (_NATURALS[letter.upper()] + _SIGNS[sign.lower()]) % 12
    return KEYS[tonic + (12 if mode.lower() == "min" else 0)]
