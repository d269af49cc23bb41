"""Files that must not pass: every kind of damage, made from real files."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mert_core.audio.decode import decode
from mert_core.audio.errors import UnusableAudio

FORMATS = {
    "wav": {"subtype": "PCM_16"},
    "flac": {},
    "ogg": {"format": "OGG", "subtype": "VORBIS"},
    "opus": {"format": "OGG", "subtype": "OPUS"},
    "mp3": {"format": "MP3"},
}


@pytest.fixture(scope="module")
def whole() -> dict[str, bytes]:
    """Six seconds of noise in every format."""
    import io

    noise = (0.1 * np.random.default_rng(0).standard_normal((48000 * 6, 2))).astype(np.float32)
    made = {}
    for kind, options in FORMATS.items():
        buffer = io.BytesIO()
        soundfile.write(buffer, noise, 48000, **{"format": kind.upper(), **options})
        made[kind] = buffer.getvalue()
    return made


def reason_of(path: Path, data: bytes | None = None) -> str:
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(UnusableAudio) as caught:
        decode(path)
    assert str(path.parent) not in caught.value.detail
    return caught.value.reason


@pytest.mark.parametrize("kind", FORMATS)
def test_whole_files_pass(tmp_path: Path, whole: dict[str, bytes], kind: str) -> None:
    (tmp_path / "a").write_bytes(whole[kind])
    assert decode(tmp_path / "a").source_seconds == pytest.approx(6.0, abs=0.06)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("kind", FORMATS)
def test_truncated(tmp_path: Path, whole: dict[str, bytes], kind: str, share: float) -> None:
    data = whole[kind]
    assert reason_of(tmp_path / f"a.{kind}", data[: int(len(data) * share)]) == "truncated"


@pytest.mark.parametrize("kind", FORMATS)
def test_truncated_by_a_few_bytes(tmp_path: Path, whole: dict[str, bytes], kind: str) -> None:
    assert reason_of(tmp_path / f"a.{kind}", whole[kind][:-3]) == "truncated"


@pytest.mark.parametrize("kind", ["flac", "ogg", "opus", "mp3"])
def test_damaged_in_the_middle(tmp_path: Path, whole: dict[str, bytes], kind: str) -> None:
    data = bytearray(whole[kind])
    middle = len(data) // 2
    data[middle : middle + 20000] = np.random.default_rng(1).bytes(20000)
    assert reason_of(tmp_path / f"a.{kind}", bytes(data)) == ("damaged" if kind in {"ogg", "opus"} else "truncated")


@pytest.mark.parametrize("kind", ["ogg", "opus"])
def test_one_flipped_bit(tmp_path: Path, whole: dict[str, bytes], kind: str) -> None:
    data = bytearray(whole[kind])
    data[len(data) // 2] ^= 1
    assert reason_of(tmp_path / f"a.{kind}", bytes(data)) == "damaged"


def without_xing(data: bytes) -> bytes:
    mark = data.find(b"Xing") if b"Xing" in data[:100] else data.find(b"Info")
    assert 0 < mark < 100
    second = data.find(data[:2], 4)
    return data[second:]


def test_mp3_without_a_frame_count(tmp_path: Path, whole: dict[str, bytes]) -> None:
    data = without_xing(whole["mp3"])
    (tmp_path / "a.mp3").write_bytes(data)
    assert decode(tmp_path / "a.mp3").source_seconds == pytest.approx(6.0, abs=0.1)
    assert reason_of(tmp_path / "b.mp3", data[:-3]) == "truncated"
    assert reason_of(tmp_path / "b.mp3", data[: len(data) // 2 + 1]) == "truncated"


def test_two_mp3_files_joined_play_to_the_end(tmp_path: Path, whole: dict[str, bytes]) -> None:
    (tmp_path / "a.mp3").write_bytes(whole["mp3"] * 2)
    assert decode(tmp_path / "a.mp3").source_seconds == pytest.approx(12.0, abs=0.2)


def test_mp3_between_tags(tmp_path: Path, whole: dict[str, bytes]) -> None:
    picture = np.random.default_rng(2).bytes(5000)
    size = bytes([0, 0, len(picture) >> 7, len(picture) & 127])
    data = b"ID3\x03\x00\x00" + size + picture + whole["mp3"] + b"TAG" + b"title".ljust(125, b"\0")
    (tmp_path / "a.mp3").write_bytes(data)
    assert decode(tmp_path / "a.mp3").source_seconds == pytest.approx(6.0, abs=0.06)
    assert reason_of(tmp_path / "b.mp3", data[:3000]) == "truncated"


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x7FFFFFFF])
def test_wav_from_a_pipe_states_no_length(tmp_path: Path, whole: dict[str, bytes], length: int) -> None:
    data = bytearray(whole["wav"])
    at = data.find(b"data")
    data[at + 4 : at + 8] = struct.pack("<I", length)
    (tmp_path / "a.wav").write_bytes(data)
    assert decode(tmp_path / "a.wav").source_seconds == pytest.approx(6.0)


def test_wav_with_tags_behind_the_samples(tmp_path: Path, whole: dict[str, bytes]) -> None:
    (tmp_path / "a.wav").write_bytes(whole["wav"] + b"LIST" + struct.pack("<I", 4) + b"INFO")
    assert decode(tmp_path / "a.wav").source_seconds == 6.0


def test_truncated_rf64(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.ones(48000) / 2, 24000, format="RF64", subtype="PCM_16")
    data = (tmp_path / "a.wav").read_bytes()
    assert reason_of(tmp_path / "a.wav", data[:50000]) == "truncated"


@pytest.mark.parametrize("kind", FORMATS)
def test_text_and_noise_under_a_musical_name(tmp_path: Path, kind: str) -> None:
    assert reason_of(tmp_path / f"a.{kind}", b"This is a text about music.\n" * 1000) == "not audio"
    assert reason_of(tmp_path / f"b.{kind}", np.random.default_rng(3).bytes(100_000)) == "not audio"


@pytest.mark.parametrize("kind", FORMATS)
def test_empty(tmp_path: Path, kind: str) -> None:
    assert reason_of(tmp_path / f"a.{kind}", b"") == "empty"


@pytest.mark.parametrize("kind", ["wav", "ogg"])
def test_a_header_without_audio(tmp_path: Path, kind: str) -> None:
    soundfile.write(tmp_path / f"a.{kind}", np.zeros((0, 2)), 48000, **FORMATS[kind])
    assert reason_of(tmp_path / f"a.{kind}") == "empty"


@pytest.mark.parametrize("kind", FORMATS)
def test_a_piece_of_a_header(tmp_path: Path, whole: dict[str, bytes], kind: str) -> None:
    assert reason_of(tmp_path / f"a.{kind}", whole[kind][:30]) in {"truncated", "not audio"}


def test_no_channels_and_an_impossible_rate(tmp_path: Path, whole: dict[str, bytes]) -> None:
    none = bytearray(whole["wav"])
    none[22:24] = b"\0\0"
    assert reason_of(tmp_path / "a.wav", bytes(none)) == "no channels"
    slow = bytearray(whole["wav"])
    slow[24:28] = struct.pack("<I", 1)
    assert reason_of(tmp_path / "b.wav", bytes(slow)) == "impossible rate"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite(tmp_path: Path, value: float) -> None:
    wave = np.random.default_rng(4).uniform(-1, 1, (96000, 2))
    wave[77777, 1] = value
    soundfile.write(tmp_path / "a.wav", wave, 24000, subtype="FLOAT")
    assert reason_of(tmp_path / "a.wav") == "not finite"


def test_unreadable(tmp_path: Path, whole: dict[str, bytes]) -> None:
    assert reason_of(tmp_path / "missing.wav") == "unreadable"
    (tmp_path / "link.wav").symlink_to(tmp_path / "nowhere.wav")
    assert reason_of(tmp_path / "link.wav") == "unreadable"
    (tmp_path / "self.wav").symlink_to(tmp_path / "self.wav")
    assert reason_of(tmp_path / "self.wav") == "unreadable"
    (tmp_path / "folder.wav").mkdir()
    assert reason_of(tmp_path / "folder.wav") == "unreadable"
    os.mkfifo(tmp_path / "pipe.wav")
    assert reason_of(tmp_path / "pipe.wav") == "unreadable"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_forbidden(tmp_path: Path, whole: dict[str, bytes]) -> None:
    (tmp_path / "a.wav").write_bytes(whole["wav"])
    (tmp_path / "a.wav").chmod(0)
    assert reason_of(tmp_path / "a.wav") == "unreadable"
