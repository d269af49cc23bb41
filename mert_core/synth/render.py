"""Playing notes on a SoundFont: deterministic, linear (the mix is the sum of its stems), at 24 kHz.

A sampler after sections 8 and 9 of the SoundFont Technical Specification 2.04: samples with loops, tunings, the
volume envelope, velocity and panorama, without filters, modulators and effects.

Why an own one. symusic 0.5.9 plays most programs of this SoundFont out of tune (the piano's middle C at 830 Hz),
takes no notice of velocity, volume and panorama, and never returns from some notes above E6: labels made from the
score would be false. tinysoundfont 0.3.7, note by note, is in tune, linear and deterministic, and as fast (0.92 of
the time), but its package requires PyAudio, which Linux has to compile against PortAudio's headers; and it does not
limit the band when it moves a sample's pitch: beside the harmonics of the violin's C6 it leaves -32 dB, this one -48.
"""

from __future__ import annotations

import importlib.util
import struct
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mert_core.audio.grid import SAMPLE_RATE
from mert_core.errors import MertError
from mert_core.files import sha256_file

# Generators (section 8.1.2) that matter here; those of a preset add to its instruments', but ranges intersect.
_PAN, _INSTRUMENT, _KEYS, _VELOCITIES, _ATTENUATION = 17, 41, 43, 44, 48
_TIMES, _SUSTAIN = (33, 34, 35, 36, 38), 37  # of the envelope: delay, attack, hold, decay, release
_COARSE_TUNE, _FINE_TUNE, _SAMPLE, _SAMPLE_MODES, _SCALE_TUNING, _ROOT_KEY = 51, 52, 53, 54, 56, 58
_LOOP_OFFSETS = ((2, 45), (3, 50))  # (fine, coarse) of loop start and loop end
_UNSIGNED = (_KEYS, _VELOCITIES, _INSTRUMENT, _SAMPLE, _SAMPLE_MODES)
_DEFAULTS = {**dict.fromkeys(_TIMES, -12000), _SCALE_TUNING: 100, _ROOT_KEY: -1}
_WHOLE_RANGE = 127 << 8  # high byte: the last; low byte: the first

_RECORDS = {
    "phdr": struct.Struct("<20sHHHIII"),
    "inst": struct.Struct("<20sH"),
    "shdr": struct.Struct("<20sIIIIIBbHH"),
    "pbag": struct.Struct("<HH"),
    "ibag": struct.Struct("<HH"),
    "pgen": struct.Struct("<HH"),
    "igen": struct.Struct("<HH"),
}


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
        keys, velocities: first and last of the range.
        sample: number of the sample, for caches.
        rate: sample rate of the sample in hertz.
        loop: first position of the loop and the one after its last, or None; in samples from the sample's start.
        root: key at which the sample sounds at its own rate, as a fraction with all tunings in it.
        cents_per_key: 100, unless the sound does not follow the keys.
        attenuation_db: attenuation of the whole zone.
        pan: -1 left … 1 right.
        envelope: volume envelope.
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


class SoundFont:
    """A SoundFont: samples and, per program of bank 0, its zones."""

    def __init__(self, path: Path) -> None:
        self.path = path
        data = path.read_bytes()
        if data[:4] != b"RIFF" or data[8:12] != b"sfbk":
            raise MertError(f"{path} is not a SoundFont 2 file")
        chunks: dict[str, bytes] = {}
        position = 12
        while position + 8 <= len(data):
            name, size = struct.unpack_from("<4sI", data, position)
            if name == b"LIST":  # its chunks follow its name
                position += 12
            else:
                chunks[name.decode("ascii", "replace")] = data[position + 8 : position + 8 + size]
                position += 8 + size + size % 2
        missing = sorted({*_RECORDS, "smpl"} - set(chunks))
        if missing:
            raise MertError(f"{path} lacks the chunks {missing}; the file is damaged")
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
            zones = (
                self._zone(outer, inner)
                for outer in self._generators("p", "phdr", self._presets[program], 3, _INSTRUMENT)
                for inner in self._generators("i", "inst", outer[_INSTRUMENT], 1, _SAMPLE)
            )
            self._zones[program] = tuple(zone for zone in zones if zone is not None)
        return self._zones[program]

    def _generators(self, level: str, header: str, number: int, column: int, wanted: int) -> list[dict[int, int]]:
        """Return the generators of each zone that names an instrument or a sample, on top of the global zone's."""
        first, last = self._tables[header][number][column], self._tables[header][number + 1][column]
        bags, generators = self._tables[f"{level}bag"], self._tables[f"{level}gen"]
        common: dict[int, int] = {}
        zones = []
        for bag in range(first, last):
            own = {
                kind: raw if kind in _UNSIGNED else raw - ((raw & 0x8000) << 1)
                for kind, raw in generators[bags[bag][0] : bags[bag + 1][0]]
            }
            if wanted in own:
                zones.append({**common, **own})
            elif bag == first:
                common = own
        return zones

    def _zone(self, outer: dict[int, int], inner: dict[int, int]) -> Zone | None:
        """Return the zone of a preset's and an instrument's generators; None where their ranges do not meet."""
        ranges = {}
        for kind in (_KEYS, _VELOCITIES):
            own = [one.get(kind, _WHOLE_RANGE) for one in (outer, inner)]
            ranges[kind] = max(value & 0xFF for value in own), min(value >> 8 for value in own)
            if ranges[kind][0] > ranges[kind][1]:
                return None
        values = {**_DEFAULTS, **inner}
        for kind, value in outer.items():
            if kind not in (*_UNSIGNED, _ROOT_KEY):
                values[kind] = values.get(kind, 0) + value
        _, start, _, loop_start, loop_end, rate, original, correction, _, _ = self._tables["shdr"][values[_SAMPLE]]
        offsets = [values.get(fine, 0) + 32768 * values.get(coarse, 0) for fine, coarse in _LOOP_OFFSETS]
        loop = (loop_start + offsets[0] - start, loop_end + offsets[1] - start)
        looped = values.get(_SAMPLE_MODES, 0) & 1 and 0 <= loop[0] < loop[1]
        root = values[_ROOT_KEY] if values[_ROOT_KEY] >= 0 else (original if original <= 127 else 60)
        tuning = values.get(_COARSE_TUNE, 0) + (values.get(_FINE_TUNE, 0) + correction) / 100
        delay, attack, hold, decay, release = (2 ** (max(values.get(kind, 0), -12000) / 1200) for kind in _TIMES)
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
                delay, attack, hold, decay, float(np.clip(values.get(_SUSTAIN, 0) / 10, 0, 100)), release
            ),
        )


@lru_cache(maxsize=1)
def load_soundfont() -> SoundFont:
    """Return the General MIDI SoundFont that the package pretty_midi ships, read once per process."""
    spec = importlib.util.find_spec("pretty_midi")
    path = Path(spec.origin).parent / "TimGM6mb.sf2" if spec and spec.origin else None
    if path is None or not path.is_file():
        raise MertError("the SoundFont TimGM6mb.sf2 of the package pretty_midi is missing; run `make setup`")
    return SoundFont(path)


_VIBRATO_GROWS_SECONDS = 0.1


@dataclass(frozen=True)
class Expression:
    """How a note moves.

    Attributes:
        tuning_cents: constant distance from the key's pitch.
        vibrato_hertz: rate of the vibrato.
        vibrato_cents: reach of the vibrato, to either side.
        slide_cents: distance from its pitch at which the note begins.
        slide_seconds: time until it arrives.
        attack_seconds: time until it reaches its loudness, beside the instrument's own attack.
        levels_db: loudness at equally distant moments of the time that it is held, joined by straight lines.
    """

    tuning_cents: float = 0.0
    vibrato_hertz: float = 0.0
    vibrato_cents: float = 0.0
    slide_cents: float = 0.0
    slide_seconds: float = 0.0
    attack_seconds: float = 0.0
    levels_db: tuple[float, ...] = (0.0, 0.0)

    def cents(self, length: int) -> NDArray[np.float64]:
        """Return how far the pitch is from the key's at each sample, (length,)."""
        time = np.arange(length) / SAMPLE_RATE
        bend = np.full(length, self.tuning_cents)
        if self.vibrato_cents:
            swing = np.sin(2 * np.pi * self.vibrato_hertz * time)
            bend += self.vibrato_cents * np.clip(time / _VIBRATO_GROWS_SECONDS, 0, 1) * swing
        if self.slide_cents:
            bend += self.slide_cents * np.clip(1 - time / self.slide_seconds, 0, 1)
        return bend

    def level(self, held: int, length: int) -> NDArray[np.float32]:
        """Return the gain at each sample, (length,), of a note whose key is held for ``held`` samples."""
        time = np.arange(length)
        gain = 10 ** (np.interp(time, np.linspace(0, held, len(self.levels_db)), self.levels_db) / 20)
        if self.attack_seconds:
            gain *= np.clip(time / (self.attack_seconds * SAMPLE_RATE), 0, 1)
        return gain.astype(np.float32)


_OVERSAMPLING = 2  # of the tables, so that linear interpolation between their points is enough
_TAPS = 32  # half-length of the low-pass, in samples at its cutoff
_LONGEST_RELEASE_SECONDS = 0.6
_SHORTEST_FADE_SECONDS = 0.01  # no click, whatever the SoundFont says
_FLOOR_DB = 100.0


@dataclass(frozen=True)
class PlayedNote:
    """A note in seconds from the start of the excerpt; ``expression`` says how it moves while it sounds."""

    onset_seconds: float
    duration_seconds: float
    pitch: int
    velocity: int
    expression: Expression | None = None


@dataclass(frozen=True)
class PlayedPart:
    """The notes of one part, its program, linear gain and panorama from -1 (left) to 1 (right)."""

    notes: tuple[PlayedNote, ...]
    program: int
    gain: float
    pan: float


def render_stems(parts: list[PlayedPart], samples: int) -> NDArray[np.float32]:
    """Play every part on its own.

    Returns:
        float32 (parts, 2, samples); the mix is the sum over parts, its mono form the mean of both channels.
    """
    font = load_soundfont()
    stems = np.zeros((len(parts), 2, samples), dtype=np.float32)
    for stem, part in zip(stems, parts, strict=True):
        for note in part.notes:
            _play(font, stem, note, part)
    return stems


def mix_mono(stems: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mono mix, float32 (samples,), of stems (parts, 2, samples)."""
    mono: NDArray[np.float32] = stems.sum(axis=(0, 1), dtype=np.float32) * np.float32(0.5)
    return mono


def _play(font: SoundFont, stem: NDArray[np.float32], note: PlayedNote, part: PlayedPart) -> None:
    """Add a note to its part's stem (2, samples)."""
    start = round(note.onset_seconds * SAMPLE_RATE)
    held = max(round(note.duration_seconds * SAMPLE_RATE), 1)
    for zone in font.zones(part.program):
        in_keys = zone.keys[0] <= note.pitch <= zone.keys[1]
        if not (in_keys and zone.velocities[0] <= note.velocity <= zone.velocities[1]):
            continue
        release_seconds = np.clip(zone.envelope.release, 2 * _SHORTEST_FADE_SECONDS, _LONGEST_RELEASE_SECONDS)
        release = round(float(release_seconds) * SAMPLE_RATE)
        length = min(held + release, stem.shape[1] - start)
        if length <= 0:
            continue
        wave = _oscillate(font, zone, note, length)
        wave *= _envelope(zone.envelope, held, release, wave.size)
        if note.expression is not None:
            wave *= note.expression.level(held, wave.size)
        level = part.gain * (note.velocity / 127) ** 2 * 10 ** (-zone.attenuation_db / 20)
        angle = (np.clip(part.pan + zone.pan, -1, 1) + 1) * np.pi / 4
        stem[0, start : start + wave.size] += wave * np.float32(level * np.sqrt(2) * np.cos(angle))
        stem[1, start : start + wave.size] += wave * np.float32(level * np.sqrt(2) * np.sin(angle))


def _oscillate(font: SoundFont, zone: Zone, note: PlayedNote, length: int) -> NDArray[np.float32]:
    """Return the sample at the note's pitch, float32 (at most ``length``,): shorter when it ends without a loop."""
    # how fast to walk through the sample: its pitch against the note's, its rate against ours
    step = 2 ** ((note.pitch - zone.root) * zone.cents_per_key / 1200) * zone.rate / SAMPLE_RATE
    position = np.arange(length, dtype=np.float64) * (step * _OVERSAMPLING)
    if note.expression is not None:
        bend = 2 ** (note.expression.cents(length) / 1200)
        position = np.cumsum(np.append(0.0, bend[:-1])) * (step * _OVERSAMPLING)
        step *= float(bend.max())
    half_octaves_down = max(int(np.ceil(np.log2(step) * 2)), 0)
    values, slopes, loop = _table(font, zone.sample, zone.loop, half_octaves_down)
    # from the loop's end on round and round; without one, as far as the sample reaches
    if loop is not None:
        first, end = loop
        turn = int(np.searchsorted(position, end))
        position[turn:] = first + (position[turn:] - first) % (end - first)
    else:
        position = position[: int(np.searchsorted(position, values.size - 1))]
    index = position.astype(np.int32)
    fraction = (position - index).astype(np.float32)
    return values[index] + fraction * slopes[index]


@lru_cache(maxsize=1024)
def _table(
    font: SoundFont, sample: int, loop: tuple[int, int] | None, half_octaves_down: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], tuple[int, int] | None]:
    """Prepare a sample for steps up to 2 ** (half_octaves_down / 2): nothing above the new Nyquist is left.

    Returns:
        The sample, oversampled and band-limited; the difference to each next point; the loop.
    """
    wave = font.sample(sample)
    margin = int(np.ceil(_TAPS * 2 ** (half_octaves_down / 2))) + 1
    if loop is not None and loop[1] <= wave.size:
        first, end = loop
        span = end - first
        lead = -(-margin // span) * span  # the loop that is used lies this far behind the first, clear of both ends
        turns = np.arange(first, first + 2 * lead + span)
        wave = np.concatenate([wave[:end], wave[first + (turns - first) % span]])
        loop = (_OVERSAMPLING * (first + lead), _OVERSAMPLING * (end + lead))
        points = _oversample(wave, half_octaves_down)[: loop[1] + 2]
    else:
        loop = None
        points = _oversample(np.concatenate([wave, np.zeros(margin, np.float32)]), half_octaves_down)
    return points, np.append(np.diff(points), np.float32(0)), loop


def _oversample(wave: NDArray[np.float32], half_octaves_down: int) -> NDArray[np.float32]:
    """Return a sample (samples,) at twice its rate, low-passed by that many half octaves, float32."""
    cutoff = 0.95 * 2 ** (-half_octaves_down / 2) / _OVERSAMPLING  # 1 is the Nyquist frequency of the table
    reach = int(np.ceil(_TAPS / cutoff))
    kernel = cutoff * np.sinc(cutoff * np.arange(-reach, reach + 1)) * np.kaiser(2 * reach + 1, 8.0)
    stuffed = np.zeros(wave.size * _OVERSAMPLING)
    stuffed[::_OVERSAMPLING] = wave
    size = 1 << int(np.ceil(np.log2(stuffed.size + kernel.size)))
    filtered = np.fft.irfft(np.fft.rfft(stuffed, size) * np.fft.rfft(kernel * _OVERSAMPLING / kernel.sum(), size), size)
    return filtered[reach : reach + stuffed.size].astype(np.float32)


@lru_cache(maxsize=256)
def _held(envelope: Envelope, samples: int) -> NDArray[np.float32]:
    """Return delay, attack, hold, decay and sustain (section 8.1.3, generators 33 to 37) as float32 (samples,)."""
    time = np.arange(samples) / SAMPLE_RATE - envelope.delay
    rise = np.clip(time / max(envelope.attack, 1e-4), 0, 1)
    decay = np.clip((time - envelope.attack - envelope.hold) / max(envelope.decay, 1e-3), 0, None) * _FLOOR_DB
    return (rise * 10 ** (-np.minimum(decay, envelope.sustain_db) / 20)).astype(np.float32)


def _envelope(envelope: Envelope, held: int, release: int, length: int) -> NDArray[np.float32]:
    """Return the volume envelope, float32 (length,), of a note held for ``held`` samples."""
    rounded = -(-max(held, length) // 12000) * 12000  # few different lengths, so that the cache serves
    curve = _held(envelope, rounded)[:length].copy()
    if length > held:
        curve[held:] = curve[held - 1] * _fade(envelope, release)[: length - held]
    return curve


@lru_cache(maxsize=256)
def _fade(envelope: Envelope, release: int) -> NDArray[np.float32]:
    """Return the fall after the key is let go, in decibel linear in time, ending at exactly zero."""
    time = np.arange(release) / SAMPLE_RATE
    fall = 10 ** (-time / max(envelope.release, _SHORTEST_FADE_SECONDS) * _FLOOR_DB / 20)
    last = round(_SHORTEST_FADE_SECONDS * SAMPLE_RATE)
    tail = np.clip((release - np.arange(release)) / last, 0, 1)
    return (fall * tail).astype(np.float32)
