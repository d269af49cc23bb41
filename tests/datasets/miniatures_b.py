"""Writers of tiny data sets in their official layouts, with the faults that the real ones are known for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

NSYNTH_FAMILIES = (
    "bass",
    "brass",
    "flute",
    "guitar",
    "keyboard",
    "mallet",
    "organ",
    "reed",
    "string",
    "synth_lead",
    "vocal",
)


def write_sound(path: Path, samples: NDArray[np.float64], rate: int) -> Path:
    """Write (samples,) or (samples, channels) as 16-bit wav, or as mp3 by the file's name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, **({} if path.suffix == ".mp3" else {"subtype": "PCM_16"}))
    return path


def note(pitch: int, family: int, seconds: float, rate: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a note at its true pitch: harmonics whose weights are the family's, a decay, and a little noise."""
    time = np.arange(round(seconds * rate)) / rate
    hertz = 440.0 * 2.0 ** ((pitch - 69) / 12)
    weights = np.random.default_rng(family).uniform(0.2, 1.0, 6) / np.arange(1, 7)
    weights[0] = 1.0
    sound = np.zeros_like(time)
    for number, weight in enumerate(weights, start=1):
        if number * hertz < 0.45 * rate:
            sound += weight * np.sin(2 * np.pi * (number * hertz * time + rng.random()))
    sound *= np.exp(-time * rng.uniform(0.5, 2.0)) * rng.uniform(0.2, 0.4) / np.abs(weights).sum()
    return sound + 1e-4 * rng.standard_normal(len(time))


def nsynth(
    folder: Path,
    per_class: int | tuple[int, int, int] = (8, 4, 4),
    pitches: Sequence[int] = (48, 55, 60, 67),
    families: Sequence[int] = (0, 3, 4),
    seconds: float = 0.5,
    missing: int = 1,
    seed: int = 0,
) -> Path:
    """Write NSynth's layout: three folders with ``examples.json`` and ``audio/NOTE.wav`` at 16 kHz.

    Args:
        folder: gets ``nsynth-train``, ``nsynth-valid`` and ``nsynth-test``.
        per_class: notes per pitch in train, valid and test; their families take turns.
        pitches: MIDI numbers.
        families: numbers of instrument families.
        seconds: length of a note.
        missing: so many notes of train are named in the json and have no wav, as happens in incomplete copies.
        seed: of levels, phases and decays.
    """
    rng = np.random.default_rng(seed)
    counts = (per_class,) * 3 if isinstance(per_class, int) else per_class
    for part, (split, count) in enumerate(zip(("train", "valid", "test"), counts, strict=True)):
        examples = {}
        for number in range(count + (missing if split == "train" else 0)):
            for pitch in pitches if number < count else pitches[:1]:
                family = families[number % len(families)]
                instrument = f"{NSYNTH_FAMILIES[family]}_synthetic_{100 * part + number:03d}"
                velocity = (25, 50, 75, 100, 127)[number % 5]
                name = f"{instrument}-{pitch:03d}-{velocity:03d}"
                examples[name] = {
                    "note": len(examples),
                    "note_str": name,
                    "instrument": 100 * part + number,
                    "instrument_str": instrument,
                    "pitch": pitch,
                    "velocity": velocity,
                    "sample_rate": 16000,
                    "qualities": [0] * 10,
                    "qualities_str": [],
                    "instrument_family": family,
                    "instrument_family_str": NSYNTH_FAMILIES[family],
                    "instrument_source": 2,
                    "instrument_source_str": "synthetic",
                }
                if number < count:
                    sound = note(pitch, family, seconds, 16000, rng)
                    write_sound(folder / f"nsynth-{split}" / "audio" / f"{name}.wav", sound, 16000)
        (folder / f"nsynth-{split}" / "examples.json").write_text(json.dumps(examples, indent=4))
    return folder


SINGERS = (*(f"female{number}" for number in range(1, 10)), *(f"male{number}" for number in range(1, 12)))


def vocalset(folder: Path, root: str = "FULL", vowels: str = "aei", singers: Sequence[str] = SINGERS) -> Path:
    """Write VocalSet's layout: singers, each in two techniques that are asked for and one that is not.

    Its faults are those of the real set: a misspelt folder, copies with ``(1)`` in their name and copies under another
    name, recordings outside of the paper's table, a file whose name tells another singer than its folder, names
    without a singer, and what macOS leaves behind.
    """
    rng = np.random.default_rng(1)

    def sing(path: str) -> Path:
        sound = np.concatenate([np.zeros(2205), 0.1 * rng.standard_normal(4410)])
        return write_sound(folder / root / path, sound, 44100)

    for singer in singers:
        short = singer[0] + singer.removeprefix("female").removeprefix("male")
        for context, technique in (("arpeggios", "vibrato"), ("scales", "belt"), ("long_tones", "messa")):
            for vowel in vowels:
                sing(f"{singer}/{context}/{technique}/{short}_{context}_{technique}_{vowel}.wav")
    sing("female2/arpeggios/vibrado/f2_arpeggios_vibrato_i.wav")
    sing("female2/scales/vibrato/f2_scales_vibrato_a(1).wav")
    sing("male10/excerpts/vibrato/caro_vibrato.wav")
    sing("male8/excerpts/vibrato/m9_caro_vibrato.wav")
    sing("female4/scales/straight/scales_straight_a.wav")
    whole = folder / root / "male3/scales/belt/m3_scales_belt_a.wav"
    (whole.parent / "scales_belt.wav").write_bytes(whole.read_bytes())
    (whole.parent / "._m3_scales_belt_a.wav").write_bytes(b"\0\5\x16\7")
    (folder / root / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    return folder


JAMENDO_ROWS = {
    "train": [
        ("0000948", "000087", "48/948.mp3", ("genre---rock", "instrument---piano", "mood/theme---happy")),
        ("0000949", "000087", "49/949.mp3", ("genre---pop", "instrument---piano", "instrument---voice")),
    ],
    "validation": [("1000214", "000014", "14/1000214.mp3", ("genre---rock", "instrument---voice", "mood/theme---sad"))],
    "test": [
        ("1083400", "000099", "00/1083400.mp3", ("genre---pop", "instrument---piano", "mood/theme---sad")),
        ("1083401", "000100", "01/1083401.mp3", ("genre---jazz", "mood/theme---happy")),
    ],
}
"""Part → (track, artist, path, tags)."""


def jamendo(
    folder: Path, audio: str = "raw_30s/audio", low: bool = False, missing: Sequence[str] = ("49/949.mp3",)
) -> Path:
    """Write MTG-Jamendo's layout: the label files of split 0 for four questions, and mp3s without some of them."""
    kinds = {"instrument": ("instrument---",), "moodtheme": ("mood/theme---",), "genre": ("genre---",)}
    kinds["top50tags"] = ("genre---", "instrument---", "mood/theme---")
    labels = folder / "data" / "splits" / "split-0"
    labels.mkdir(parents=True)
    for question, prefixes in kinds.items():
        for part, rows in JAMENDO_ROWS.items():
            lines = ["TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS"]
            for track, artist, path, tags in rows:
                if kept := [tag for tag in tags if tag.startswith(prefixes)]:
                    lines.append(
                        "\t".join([f"track_{track}", f"artist_{artist}", "album_000149", path, "212.7", *kept])
                    )
            (labels / f"autotagging_{question}-{part}.tsv").write_text("\n".join(lines) + "\n")
    rng = np.random.default_rng(2)
    for path in (row[2] for rows in JAMENDO_ROWS.values() for row in rows):
        if path not in missing:
            name = path.removesuffix(".mp3") + (".low.mp3" if low else ".mp3")
            write_sound(folder / audio / name, 0.1 * rng.standard_normal((11025, 1 if low else 2)), 44100)
    return folder


MUSDB_TRAIN = ("A Classic Education - NightOwl", "ANiMAL - Rockshow", "Actions - Devil's Words", "Leaf - Summerghost")
MUSDB_TEST = ("AM Contra - Heart Peripheral", "PR - Oh No")
MUSDB_STEMS = ("vocals", "drums", "bass", "other")


def musdb18hq(
    folder: Path, seconds: float = 0.25, without: tuple[str, str] = ("Actions - Devil's Words", "bass")
) -> Path:
    """Write MUSDB18-HQ's layout: stereo stems and their sum at 44.1 kHz; one song lacks a stem."""
    rng = np.random.default_rng(3)
    for part, songs in (("train", MUSDB_TRAIN), ("test", MUSDB_TEST)):
        for song in songs:
            stems = {stem: 0.05 * rng.standard_normal((round(seconds * 44100), 2)) for stem in MUSDB_STEMS}
            for name, sound in {**stems, "mixture": np.sum(list(stems.values()), axis=0)}.items():
                if (song, name) != without:
                    write_sound(folder / part / song / f"{name}.wav", sound, 44100)
    return folder
