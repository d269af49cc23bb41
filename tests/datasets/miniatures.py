"""Small copies of the data sets in their official layouts, with the faults that the published ones have."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import soundfile

GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
MTT_TAGS = tuple(f"tag {number:02d}" for number in range(55))
BEATS = (0.1, 0.35, 0.6, 0.85)


def write_sound(path: Path, seconds: float = 1.0, rate: int = 22050, frequency: float = 440.0) -> Path:
    """A sine in a quiet noise; the format by the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(round(frequency)).normal(0, 0.01, len(time))
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * frequency * time) + noise, rate)
    return path


def write_rows(path: Path, rows: list[list[object]], **dialect: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
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
            (folder / mp3).parent.mkdir(parents=True, exist_ok=True)
            (folder / mp3).write_bytes(b"")
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


def held_out_artist() -> str:
    """A name whose hash puts it into the validation split."""
    names = (f"Held Out {number}" for number in range(1000))
    return next(name for name in names if _artist_hash(name) >= 100)


def kept_artist(name: str) -> str:
    """A name like this one whose hash puts it into the training split."""
    return next(text for text in (f"{name}{'!' * n}" for n in range(1000)) if _artist_hash(text) < 100)


def _artist_hash(name: str) -> int:
    return int(hashlib.sha1(name.lower().encode("utf-8")).hexdigest(), 16) % 116


def write_giantsteps(folder: Path) -> Path:
    """Both repositories with sound and MD5 sums; two keys, no key and a doubtful key occur."""
    names = {"Held Out": held_out_artist()} | {
        name: kept_artist(name) for name in ("DJ A", "DJ B", "Friend", "Friend of Friend")
    }
    train, test = folder / "giantsteps-mtg-key-dataset", folder / "giantsteps-key-dataset-master"
    keys: list[list[object]] = [["ID", "MANUAL KEY", "C"], *([*row[:3]] for row in GS_TRAIN)]
    write_rows(train / "annotations/annotations.txt", keys, delimiter="\t")
    metadata: list[list[object]] = [["ID", "ARTIST", "SONG TITLE"]]
    for number, _, _, artists in GS_TRAIN:
        metadata.append([number, ", ".join(names[name] for name in artists.split(", ")), "Title"])
    write_rows(train / "annotations/beatport_metadata.txt", metadata, delimiter="\t")
    for repository, numbers in ((train, [row[0] for row in GS_TRAIN]), (test, [row[0] for row in GS_TEST])):
        (repository / "md5").mkdir(parents=True)
        for number in numbers:
            path = write_sound(repository / "audio" / f"{number}.LOFI.mp3", 0.5, 44100, 300.0 + number % 97)
            content = hashlib.md5(path.read_bytes()).hexdigest()
            (repository / "md5" / f"{number}.LOFI.md5").write_text(f"{content}\n")
    (train / "audio/77.LOFI.mp3").unlink()
    for number, key in GS_TEST:
        path = test / "annotations/key" / f"{number}.LOFI.key"
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(key)
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
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"annotations": annotations, "file_metadata": {"duration": 30.0}, "sandbox": {}}))


def write_emo(folder: Path, songs: int = 40) -> Path:
    """Songs of eight artists, blanks around cells as published; every fourth is of the evaluation set. Song 7 has no
    sound, song 9 no rating."""
    info: list[list[object]] = [
        [
            "song_id",
            "file_name",
            "Artist",
            "Song title",
            "start of the segment (min.sec)",
            "end of the segment (min.sec)",
            "Genre",
            "Mediaeval 2013 set",
        ]
    ]
    ratings: list[list[object]] = [["song_id", "mean_arousal", "std_arousal", "mean_valence", "std_valence"]]
    for song in range(1, songs + 1):
        part = "evaluation" if song % 4 == 0 else "development"
        info.append(
            [
                song,
                f"{song}.mp3",
                f"\tThe Ärtist, No. {song % 8} {'abcdefgh'[song % 8]}\t",
                "Title",
                0.1,
                0.46,
                "Pop",
                part,
            ]
        )
        if song != 9:
            ratings.append([song, 1 + song / 10, 1.0, 9 - song / 10, 1.5])
        if song != 7:
            write_sound(folder / "clips_45seconds" / f"{song}.mp3", 0.4, 44100, 200.0 + song)
    write_rows(folder / "annotations/songs_info.csv", info)
    write_rows(folder / "annotations/static_annotations.csv", ratings)
    return folder
