"""Reading a SoundFont 2 file: which samples a General MIDI program plays for a key and a velocity.

Section numbers refer to the SoundFont Technical Specification 2.04.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mert_core.errors import MertError
from mert_core.files import sha256_file

# Generators (section 8.1.2) that matter here; those of a preset add to its instruments', but ranges intersect.
_PAN, _INSTRUMENT, _KEYS, _VELOCITIES, _ATTENUATION = 17, 41, 43, 44, 48
_ENVELOPE = (33, 34, 35, 36, 37, 38)  # delay, attack, hold, decay, sustain, release
_COARSE_TUNE, _FINE_TUNE, _SAMPLE, _SAMPLE_MODES, _SCALE_TUNING, _ROOT_KEY = 51, 52, 53, 54, 56, 58
_LOOP_OFFSETS = ((2, 45), (3, 50))  # (fine, coarse) of loop start and loop end
_RANGES = (_KEYS, _VELOCITIES)
_DEFAULTS = {33: -12000, 34: -12000, 35: -12000, 36: -12000, 38: -12000, _SCALE_TUNING: 100, _ROOT_KEY: -1}
_EMPTY_RANGE = 0 | (127 << 8)

_RECORDS = {
    "phdr": struct.Struct("<20sHHHIII"), "inst": struct.Struct("<20sH"), "shdr": struct.Struct("<20sIIIIIBbHH"),
    "pbag": struct.Struct("<HH"), "ibag": struct.Struct("<HH"),
    "pgen": struct.Struct("<HH"), "igen": struct.Struct("<HH"),
}  # fmt: skip


@dataclass(frozen=True)
class Envelope:
    """Volume envelope; seconds, and the sustain level as attenuation in decibel."""

    delay: float
    attack: float
    hold: float
    decay: float
    sustain_db: float
    release: float


@dataclass(frozen=True)
class Zone:
    """One sample as one program plays it over a range of keys and velocities.

    Attributes:
        sample: number of the sample, for caches.
        loop: first position of the loop and the one after its last, or None; in samples from the sample's start.
        root: key at which the sample sounds at its own rate, as a fraction with all tunings in it.
        cents_per_key: 100, unless the sound does not follow the keys.
        pan: -1 left … 1 right.
    """

    keys: tuple[int, int]
    velocities: tuple[int, int]
    sample: int
    rate: int
    loop: tuple[int, int] | None
    root: float
    cents_per_key: int
    attenuation_db: float
    pan: float
    envelope: Envelope


def default_path() -> Path:
    """Return the General MIDI SoundFont that the package pretty_midi ships."""
    import importlib.util

    spec = importlib.util.find_spec("pretty_midi")
    path = Path(spec.origin).parent / "TimGM6mb.sf2" if spec and spec.origin else None
    if path is None or not path.is_file():
        raise MertError("the SoundFont TimGM6mb.sf2 of the package pretty_midi is missing; run `make setup`")
    return path


class SoundFont:
    """A SoundFont: samples and, per program of bank 0, its zones."""

    def __init__(self, path: Path) -> None:
        self.path = path
        chunks = _chunks(path)
        self._tables = {name: list(layout.iter_unpack(chunks[name])) for name, layout in _RECORDS.items()}
        self._pcm = np.frombuffer(chunks["smpl"], dtype="<i2")
        self._presets = {row[1]: index for index, row in enumerate(self._tables["phdr"][:-1]) if row[2] == 0}
        self._zones: dict[int, tuple[Zone, ...]] = {}

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file."""
        return sha256_file(self.path)

    def sample(self, number: int) -> NDArray[np.float32]:
        """Return one sample, float32 in [-1, 1)."""
        start, end = self._tables["shdr"][number][1:3]
        return self._pcm[start:end].astype(np.float32) / np.float32(32768)

    def zones(self, program: int) -> tuple[Zone, ...]:
        """Return the zones of a General MIDI program, 0-127.

        Raises:
            MertError: the SoundFont lacks the program.
        """
        if program not in self._zones:
            if program not in self._presets:
                raise MertError(f"{self.path.name} has no program {program} in bank 0; it has {sorted(self._presets)}")
            self._zones[program] = tuple(self._read(self._presets[program]))
        return self._zones[program]

    def _read(self, preset: int) -> list[Zone]:
        zones = []
        for outer in _bags(self._tables, "p", "phdr", preset, 3, _INSTRUMENT):
            for inner in _bags(self._tables, "i", "inst", outer[_INSTRUMENT], 1, _SAMPLE):
                ranges = {kind: _narrow(outer.get(kind), inner.get(kind)) for kind in _RANGES}
                if all(low <= high for low, high in ranges.values()):
                    zones.append(self._zone(_sum(outer, inner), ranges))
        return zones

    def _zone(self, values: dict[int, int], ranges: dict[int, tuple[int, int]]) -> Zone:
        _, start, _, loop_start, loop_end, rate, original, correction, _, _ = self._tables["shdr"][values[_SAMPLE]]
        offsets = [values.get(fine, 0) + 32768 * values.get(coarse, 0) for fine, coarse in _LOOP_OFFSETS]
        loop = (loop_start + offsets[0] - start, loop_end + offsets[1] - start)
        looped = values.get(_SAMPLE_MODES, 0) & 1 and 0 <= loop[0] < loop[1]
        root = values[_ROOT_KEY] if values[_ROOT_KEY] >= 0 else (original if original <= 127 else 60)
        tuning = values.get(_COARSE_TUNE, 0) + (values.get(_FINE_TUNE, 0) + correction) / 100
        times = [2 ** (max(values.get(kind, 0), -12000) / 1200) for kind in _ENVELOPE]
        return Zone(
            keys=ranges[_KEYS],
            velocities=ranges[_VELOCITIES],
            sample=values[_SAMPLE],
            rate=rate,
            loop=loop if looped else None,
            root=root - tuning * 100 / max(values[_SCALE_TUNING], 1),
            cents_per_key=values[_SCALE_TUNING],
            attenuation_db=0.04 * values.get(_ATTENUATION, 0),  # centibel, of which 0.4 count, as in FluidSynth
            pan=float(np.clip(values.get(_PAN, 0) / 500, -1, 1)),
            envelope=Envelope(
                delay=times[0], attack=times[1], hold=times[2], decay=times[3],
                sustain_db=float(np.clip(values.get(_ENVELOPE[4], 0) / 10, 0, 100)), release=times[5],
            ),
        )  # fmt: skip


@lru_cache(maxsize=1)
def load_soundfont(path: Path | None = None) -> SoundFont:
    """Return the SoundFont, by default pretty_midi's, read once per process."""
    return SoundFont(path or default_path())


def _chunks(path: Path) -> dict[str, bytes]:
    data = path.read_bytes()
    if data[:4] != b"RIFF" or data[8:12] != b"sfbk":
        raise MertError(f"{path} is not a SoundFont 2 file")
    found: dict[str, bytes] = {}

    def walk(position: int, end: int) -> None:
        while position + 8 <= end:
            name, size = struct.unpack_from("<4sI", data, position)
            if name == b"LIST":
                walk(position + 12, position + 8 + size)
            else:
                found[name.decode("ascii", "replace")] = data[position + 8 : position + 8 + size]
            position += 8 + size + size % 2

    walk(12, len(data))
    missing = sorted({*_RECORDS, "smpl"} - set(found))
    if missing:
        raise MertError(f"{path} lacks the chunks {missing}; the file is damaged")
    return found


def _bags(
    tables: dict[str, list[tuple]], level: str, header: str, number: int, column: int, wanted: int
) -> list[dict[int, int]]:
    """Return the generators of each zone that names an instrument or a sample, on top of the global zone's."""
    first, last = tables[header][number][column], tables[header][number + 1][column]
    common: dict[int, int] = {}
    zones = []
    for bag in range(first, last):
        begin, end = tables[f"{level}bag"][bag][0], tables[f"{level}bag"][bag + 1][0]
        own = {kind: _signed(kind, raw) for kind, raw in tables[f"{level}gen"][begin:end]}
        if wanted in own:
            zones.append({**common, **own})
        elif bag == first:
            common = own
    return zones


def _signed(kind: int, raw: int) -> int:
    return raw if kind in (*_RANGES, _INSTRUMENT, _SAMPLE, _SAMPLE_MODES) else raw - ((raw & 0x8000) << 1)


def _sum(outer: dict[int, int], inner: dict[int, int]) -> dict[int, int]:
    values = {**_DEFAULTS, **inner}
    for kind, value in outer.items():
        if kind not in (*_RANGES, _INSTRUMENT, _SAMPLE, _SAMPLE_MODES, _ROOT_KEY):
            values[kind] = values.get(kind, 0) + value
    return values


def _narrow(outer: int | None, inner: int | None) -> tuple[int, int]:
    ranges = [_EMPTY_RANGE if value is None else value for value in (outer, inner)]
    return max(value & 0xFF for value in ranges), min(value >> 8 for value in ranges)
