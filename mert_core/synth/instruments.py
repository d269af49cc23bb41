"""Which General MIDI programs play, in which families, and how high and low each of them goes."""

from __future__ import annotations

from dataclasses import dataclass

# Programs are counted from 0; ranges are MIDI keys, first and last.
FAMILIES: dict[str, dict[int, tuple[int, int]]] = {
    "piano": {0: (28, 96), 1: (28, 96), 4: (32, 92), 5: (32, 92), 6: (32, 88)},
    "chromatic percussion": {8: (48, 96), 11: (48, 92), 12: (40, 92), 13: (52, 96)},
    "organ": {16: (32, 92), 19: (32, 92), 20: (36, 88), 21: (40, 72)},
    "guitar": {24: (36, 84), 25: (36, 84), 26: (36, 84), 27: (36, 84)},
    "bass": {32: (26, 62), 33: (26, 62), 35: (26, 62)},
    "strings": {40: (52, 96), 41: (46, 86), 42: (32, 76), 45: (36, 92), 48: (32, 92), 49: (32, 92)},
    "voice": {52: (40, 86), 53: (40, 86), 54: (40, 86)},
    "brass": {56: (48, 86), 57: (36, 76), 58: (26, 64), 60: (36, 80), 61: (36, 86)},
    "reed": {64: (50, 88), 65: (44, 63), 66: (38, 80), 68: (52, 90), 70: (30, 74), 71: (44, 92)},
    "pipe": {72: (60, 98), 73: (52, 96), 74: (52, 96), 75: (48, 92), 79: (48, 92)},
}

# A bass plays too few of the pitches for a fair choice among families.
NOTE_FAMILIES = tuple(name for name in FAMILIES if name != "bass")
NOTE_LOWEST, NOTE_HIGHEST = 36, 84


@dataclass(frozen=True)
class Instrument:
    """One program of General MIDI with its family."""

    program: int
    family: str
    lowest: int
    highest: int


INSTRUMENTS = tuple(
    Instrument(program, family, *span) for family, programs in FAMILIES.items() for program, span in programs.items()
)
