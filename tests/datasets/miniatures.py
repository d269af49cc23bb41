"""Small copies of the data sets in their official layouts, with the faults that the published ones have."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from mert_core.datasets.musdb18 import STEMS
from mert_core.datasets.nsynth import FAMILIES

GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
MTT_TAGS = tuple(f"tag {number:02d}" for number in range(55))
BEATS = (0.1, 0.35, 0.6, 0.85)


def write_sound(path: Path, seconds: float = 1.0, rate: int = 22050, frequency: float = 440.0) -> Path:
    """A sine in a quiet noise; the format by the suffix."""
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(round(frequency)).normal(0, 0.01, len(time))
    return write_samples(path, 0.3 * np.sin(2 * np.pi * frequency * time) + noise, rate)


def write_samples(path: Path, samples: NDArray[np.float64], rate: int) -> Path:
    """Write (samples,) or (samples, channels), with 16 bits where the format has bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate)
    return path


def write_bytes(path: Path, content: bytes = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def write_rows(path: Path, rows: list[list[object]], **dialect: object) -> None:
    with write_bytes(path).open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, **dialect).writerows(rows)  # type: ignore[arg-type]


def write_mtt(folder: Path) -> Path:
    """Two clips in each of seven folders; tag n applies to clips 0…n, but the last tag to none. Three mp3s are empty,
    as published."""
    rows: list[list[object]] = [["clip_id", *MTT_TAGS, "mp3_path"]]
    clips = [
        (str(100 + number), f"{'00bbcdf'[number // 2]}/artist-album-{number:02d}-29-58.mp3") for number in range(14)
    ]
    clips += [("35644", "6/norine-117-146.mp3"), ("55753", "8/jacob-204-233.mp3"), ("57881", "9/baroque-88-117.mp3")]
    for number, (clip_id, mp3) in enumerate(clips):
        tags = [int(number < 14 and number <= tag < 54) for tag in range(55)]
        rows.append([clip_id, *tags, mp3])
        if number < 14:
            write_sound(folder / mp3, 0.5, 16000, 200.0 + number)
        else:
            write_bytes(folder / mp3)
    write_rows(folder / "annotations_final.csv", rows, delimiter="\t", quoting=csv.QUOTE_ALL)
    return folder


GS_TRAIN = (  # number, key as annotated, confidence, artists
    (5061, "D# minor", 2, "DJ A"),
    (7217, "Db major", 2, "DJ A, DJ B"),
    (5881, "A major", 2, "Held Out"),
    (9001, "F minor", 2, "Held Out, Friend"),
    (9002, "G minor", 2, "Friend, Friend of Friend"),
    (9003, "B major ", 2, "Friend of Friend"),
    (16484, "A minor", 1, "DJ A"),
    (10981, "-", 0, "DJ A"),
    (4311630, " ", 0, "DJ A"),
    (61578, "C minor / F# minor", 2, "DJ A"),
    (297150, "A-A# minor", 0, "DJ A"),
    (299300, "G minor/major", 1, "DJ A"),
    (77, "C minor", 2, "DJ A"),  # its sound cannot be fetched any more
)
GS_TEST = ((10089, "Bb major"), (774875, "Gb minor"), (3687442, "D minor"))


def artist(name: str, held_out: bool = False) -> str:
    """A name like this one whose hash puts it into the training split, or into the validation split."""
    names = (f"{name}{'!' * n}" for n in range(1000))
    return next(
        one for one in names if (int(hashlib.sha1(one.lower().encode()).hexdigest(), 16) % 116 >= 100) == held_out
    )


def write_giantsteps(folder: Path) -> Path:
    """Both repositories with sound and MD5 sums; two keys, no key and a doubtful key occur."""
    names = {name: artist(name, name == "Held Out") for row in GS_TRAIN for name in row[3].split(", ")}
    train, test = folder / "giantsteps-mtg-key-dataset", folder / "giantsteps-key-dataset-master"
    keys: list[list[object]] = [["ID", "MANUAL KEY", "C"], *([*row[:3]] for row in GS_TRAIN)]
    write_rows(train / "annotations/annotations.txt", keys, delimiter="\t")
    metadata: list[list[object]] = [["ID", "ARTIST", "SONG TITLE"]]
    for number, _, _, artists in GS_TRAIN:
        metadata.append([number, ", ".join(names[name] for name in artists.split(", ")), "Title"])
    write_rows(train / "annotations/beatport_metadata.txt", metadata, delimiter="\t")
    for repository, numbers in ((train, [row[0] for row in GS_TRAIN]), (test, [row[0] for row in GS_TEST])):
        for number in numbers:
            path = write_sound(repository / "audio" / f"{number}.LOFI.mp3", 0.5, 44100, 300.0 + number % 97)
            content = hashlib.md5(path.read_bytes()).hexdigest()
            write_bytes(repository / "md5" / f"{number}.LOFI.md5", f"{content}\n".encode())
    (train / "audio/77.LOFI.mp3").unlink()
    for number, key in GS_TEST:
        write_bytes(test / "annotations/key" / f"{number}.LOFI.key", key.encode())
    return folder


def write_gtzan(folder: Path, suffix: str = ".wav") -> Path:
    """Three clips a genre, one for each split; a fourth is on no list. jazz.00054 is on the training list, as
    published, and is no audio, as in the common copy. A clip's beats go on after its end, another has none."""
    lists: dict[str, list[str]] = {"train": [], "valid": [], "test": []}
    for place, genre in enumerate(GENRES):
        for number, split in enumerate((*lists, None)):
            clip_id = f"{genre}.{number:05d}"
            write_sound(folder / "genres" / genre / f"{clip_id}{suffix}", 1.0, 22050, 200.0 + 10 * place + number)
            write_jams(folder, clip_id, BEATS)
            if split:
                lists[split].append(f"{genre}/{clip_id}.wav")
    (folder / "genres/jazz" / f"jazz.00054{suffix}").write_bytes(b"no audio" * 20)
    lists["train"].append("jazz/jazz.00054.wav")
    write_jams(folder, "jazz.00054", BEATS)
    write_jams(folder, "reggae.00002", (*BEATS, 1.2, 1.6))
    write_jams(folder, "rock.00001", ())
    for split, lines in lists.items():
        (folder / f"{split}_filtered.txt").write_text("\n".join(lines) + "\n")
    return folder


def write_jams(folder: Path, clip_id: str, beats: tuple[float, ...]) -> None:
    """GTZAN-Rhythm's annotation of one clip: beats, every fourth of them a downbeat, and a tag."""
    annotations = [
        {
            "namespace": "beat",
            "sandbox": {"annotation_type": kind},
            "data": [{"time": time, "duration": 0.0, "confidence": 1, "value": 1} for time in times],
        }
        for kind, times in (("beat", beats), ("downbeat", beats[::4]))
    ]
    annotations.append({"namespace": "tag_open", "sandbox": {"swing": "no", "ternary": "no"}, "data": []})
    path = folder / "GTZAN-Rhythm_v2_ismir2015_lbd/jams" / f"{clip_id}.wav.jams"
    tree = {"annotations": annotations, "file_metadata": {"duration": 30.0}, "sandbox": {}}
    write_bytes(path, json.dumps(tree).encode())


def write_emo(folder: Path) -> Path:
    """Songs of eight artists, blanks around cells as published; every fourth is of the evaluation set. Song 7 has no
    sound, song 9 no rating."""
    segment = [f"{end} of the segment (min.sec)" for end in ("start", "end")]
    names = ["song_id", "file_name", "Artist", "Song title", *segment, "Genre", "Mediaeval 2013 set"]
    info: list[list[object]] = [[*names]]
    ratings: list[list[object]] = [["song_id", "mean_arousal", "std_arousal", "mean_valence", "std_valence"]]
    for song in range(1, 41):
        part = "evaluation" if song % 4 == 0 else "development"
        name = f"\tThe Ärtist, No. {song % 8} {'abcdefgh'[song % 8]}\t"
        info.append([song, f"{song}.mp3", name, "Title", 0.1, 0.46, "Pop", part])
        if song != 9:
            ratings.append([song, 1 + song / 10, 1.0, 9 - song / 10, 1.5])
        if song != 7:
            write_sound(folder / "clips_45seconds" / f"{song}.mp3", 0.4, 44100, 200.0 + song)
    write_rows(folder / "annotations/songs_info.csv", info)
    write_rows(folder / "annotations/static_annotations.csv", ratings)
    return folder


def note(pitch: int, family: int, seconds: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a note at its true pitch: harmonics whose weights are the family's, a decay, and a little noise."""
    time = np.arange(round(seconds * 16000)) / 16000
    hertz = 440.0 * 2.0 ** ((pitch - 69) / 12) * np.arange(1, 7)[:, None]
    weights = np.random.default_rng(family).uniform(0.2, 1.0, 6) / np.arange(1, 7)
    weights[0] = 1.0
    sound = weights @ np.sin(2 * np.pi * (hertz * time + rng.random((6, 1))))
    sound *= np.exp(-time * rng.uniform(0.5, 2.0)) * rng.uniform(0.2, 0.4) / weights.sum()
    return sound + 1e-4 * rng.standard_normal(len(time))


NSYNTH_REST = {"sample_rate": 16000, "qualities": [0] * 10, "qualities_str": [], "instrument_source_str": "synthetic"}


def write_nsynth(folder: Path, per_class: tuple[int, int, int] = (3, 2, 1), seconds: float = 0.3) -> Path:
    """Notes of four pitches in train, valid and test, so many of each; three families take turns. One more note of
    train is named in the json and has no wav, as happens in incomplete copies."""
    rng = np.random.default_rng(0)
    pitches, families = (48, 55, 60, 67), (0, 3, 4)
    for part, (split, count) in enumerate(zip(("train", "valid", "test"), per_class, strict=True)):
        examples = {}
        for number in range(count + (split == "train")):
            for pitch in pitches if number < count else pitches[:1]:
                family = families[number % len(families)]
                instrument = f"{FAMILIES[family]}_synthetic_{100 * part + number:03d}"
                velocity = (25, 50, 75, 100, 127)[number % 5]
                name = f"{instrument}-{pitch:03d}-{velocity:03d}"
                own = {"instrument": 100 * part + number, "instrument_str": instrument, "velocity": velocity}
                sort = {"pitch": pitch, "instrument_family": family, "instrument_family_str": FAMILIES[family]}
                examples[name] = {"note": len(examples), "note_str": name, **own, **sort, **NSYNTH_REST}
                if number < count:
                    sound = note(pitch, family, seconds, rng)
                    write_samples(folder / f"nsynth-{split}" / "audio" / f"{name}.wav", sound, 16000)
        (folder / f"nsynth-{split}" / "examples.json").write_text(json.dumps(examples, indent=4))
    return folder


SINGERS = (*(f"female{number}" for number in range(1, 10)), *(f"male{number}" for number in range(1, 12)))


def write_vocalset(folder: Path, root: str = "FULL", vowels: str = "aei", singers: Sequence[str] = SINGERS) -> Path:
    """Write VocalSet's layout: singers, each in two techniques that are asked for and one that is not.

    Its faults are those of the real set: a misspelt folder, copies with ``(1)`` in their name and copies under another
    name, recordings outside of the paper's table, a file whose name tells another singer than its folder, names
    without a singer, and what macOS leaves behind.
    """
    rng = np.random.default_rng(1)

    def sing(path: str) -> Path:
        sound = np.concatenate([np.zeros(2205), 0.1 * rng.standard_normal(4410)])
        return write_samples(folder / root / path, sound, 44100)

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


def write_jamendo(
    folder: Path, audio: str = "raw_30s/audio", low: bool = False, missing: Sequence[str] = ("49/949.mp3",)
) -> Path:
    """Write MTG-Jamendo's layout: the label files of split 0 for four questions, and mp3s without some of them."""
    kinds = {"instrument": ("instrument---",), "moodtheme": ("mood/theme---",), "genre": ("genre---",)}
    kinds["top50tags"] = ("genre---", "instrument---", "mood/theme---")
    labels = folder / "data" / "splits" / "split-0"
    for question, prefixes in kinds.items():
        for part, rows in JAMENDO_ROWS.items():
            lines = ["TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS"]
            for track, artist, path, tags in rows:
                if kept := [tag for tag in tags if tag.startswith(prefixes)]:
                    fields = [f"track_{track}", f"artist_{artist}", "album_000149", path, "212.7", *kept]
                    lines.append("\t".join(fields))
            write_bytes(labels / f"autotagging_{question}-{part}.tsv", ("\n".join(lines) + "\n").encode())
    rng = np.random.default_rng(2)
    for path in (row[2] for rows in JAMENDO_ROWS.values() for row in rows):
        if path not in missing:
            name = path.removesuffix(".mp3") + (".low.mp3" if low else ".mp3")
            write_samples(folder / audio / name, 0.1 * rng.standard_normal((11025, 1 if low else 2)), 44100)
    return folder


MUSDB_TRAIN = ("A Classic Education - NightOwl", "ANiMAL - Rockshow", "Actions - Devil's Words", "Leaf - Summerghost")
MUSDB_TEST = ("AM Contra - Heart Peripheral", "PR - Oh No")


def write_musdb18hq(folder: Path) -> Path:
    """MUSDB18-HQ's layout: stereo stems and their sum at 44.1 kHz; one song lacks its bass."""
    rng = np.random.default_rng(3)
    for part, songs in (("train", MUSDB_TRAIN), ("test", MUSDB_TEST)):
        for song in songs:
            stems = {stem: 0.05 * rng.standard_normal((11025, 2)) for stem in STEMS}
            for name, sound in {**stems, "mixture": np.sum(list(stems.values()), axis=0)}.items():
                if (song, name) != ("Actions - Devil's Words", "bass"):
                    write_samples(folder / part / song / f"{name}.wav", sound, 44100)
    return folder


WRITERS: dict[str, Callable[[Path], Path]] = {
    "mtt": write_mtt,
    "giantsteps": write_giantsteps,
    "gtzan": write_gtzan,
    "emo": write_emo,
    "nsynth": write_nsynth,
    "vocalset": write_vocalset,
    "mtg_jamendo": write_jamendo,
    "musdb18": write_musdb18hq,
}
"""By the sets' names in the registry."""
