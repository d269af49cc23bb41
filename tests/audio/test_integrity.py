"""Files that must not pass: every kind of damage, made from real files."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mert_core.audio.decode import decode
from mert_core.audio.errors import UnusableAudio
from tests.audio.test_decode import FORMATS


@pytest.fixture(scope="module")
def whole() -> dict[str, bytes]:
    """Six seconds of noise in every format."""
    noise = (0.1 * np.random.default_rng(0).standard_normal((48000 * 6, 2))).astype(np.float32)
    made = {}
    for kind, options in FORMATS.items():
        buffer = io.BytesIO()
        soundfile.write(buffer, noise, 48000, **{"format": kind.upper(), **options})
        made[kind] = buffer.getvalue()
    return made


def seconds_of(path: Path, data: bytes) -> float:
    path.write_bytes(data)
    return decode(path).source_seconds


def reason_of(path: Path, data: bytes | None = None) -> str:
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(UnusableAudio) as caught:
        decode(path)
    assert str(path.parent) not in caught.value.detail
    return caught.value.reason


@pytest.mark.parametrize("kind", FORMATS)
def test_whole_files_pass_and_cut_ones_do_not(tmp_path: Path, whole: dict[str, bytes], kind: str) -> None:
    data, path = whole[kind], tmp_path / f"a.{kind}"
    assert seconds_of(path, data) == pytest.approx(6.0, abs=0.06)
    for share in (0.3, 0.5, 0.9, 0.99):
        assert reason_of(path, data[: int(len(data) * share)]) == "truncated", share
    assert reason_of(path, data[:-3]) == "truncated"
    assert reason_of(path, data[:30]) in {"truncated", "not audio"}  # a piece of the header
    assert reason_of(path, b"") == "empty"


@pytest.mark.parametrize("kind", FORMATS)
def test_text_and_noise_under_a_musical_name(tmp_path: Path, kind: str) -> None:
    assert reason_of(tmp_path / f"a.{kind}", b"This is a text about music.\n" * 1000) == "not audio"
    assert reason_of(tmp_path / f"b.{kind}", np.random.default_rng(3).bytes(100_000)) == "not audio"


@pytest.mark.parametrize("kind", ["flac", "ogg", "opus", "mp3"])
def test_damaged_in_the_middle(tmp_path: Path, whole: dict[str, bytes], kind: str) -> None:
    data = bytearray(whole[kind])
    middle = len(data) // 2
    data[middle : middle + 20000] = np.random.default_rng(1).bytes(20000)
    checked = kind in {"ogg", "opus"}
    assert reason_of(tmp_path / f"a.{kind}", bytes(data)) == ("damaged" if checked else "truncated")
    if checked:  # then one bit is enough
        data = bytearray(whole[kind])
        data[middle] ^= 1
        assert reason_of(tmp_path / f"a.{kind}", bytes(data)) == "damaged"


def test_mp3_without_a_frame_count(tmp_path: Path, whole: dict[str, bytes]) -> None:
    assert b"Xing" in whole["mp3"][:100] or b"Info" in whole["mp3"][:100]
    data = whole["mp3"][whole["mp3"].find(whole["mp3"][:2], 4) :]  # from its second frame on
    assert seconds_of(tmp_path / "a.mp3", data) == pytest.approx(6.0, abs=0.1)
    assert reason_of(tmp_path / "b.mp3", data[:-3]) == "truncated"
    assert reason_of(tmp_path / "b.mp3", data[: len(data) // 2 + 1]) == "truncated"


def test_two_mp3_files_joined_play_to_the_end(tmp_path: Path, whole: dict[str, bytes]) -> None:
    assert seconds_of(tmp_path / "a.mp3", whole["mp3"] * 2) == pytest.approx(12.0, abs=0.2)


def test_mp3_between_tags(tmp_path: Path, whole: dict[str, bytes]) -> None:
    picture = np.random.default_rng(2).bytes(5000)
    size = bytes([0, 0, len(picture) >> 7, len(picture) & 127])
    data = b"ID3\x03\x00\x00" + size + picture + whole["mp3"] + b"TAG" + b"title".ljust(125, b"\0")
    assert seconds_of(tmp_path / "a.mp3", data) == pytest.approx(6.0, abs=0.06)
    assert reason_of(tmp_path / "b.mp3", data[:3000]) == "truncated"


def test_odd_wav_files(tmp_path: Path, whole: dict[str, bytes]) -> None:
    def changed(at: int, value: bytes) -> bytes:
        return whole["wav"][:at] + value + whole["wav"][at + len(value) :]

    for length in (0xFFFFFFFF, 0x7FFFFFFF):  # from a pipe: no length is known
        data = changed(whole["wav"].find(b"data") + 4, struct.pack("<I", length))
        assert seconds_of(tmp_path / "a.wav", data) == 6.0
    with_tags = whole["wav"] + b"LIST" + struct.pack("<I", 4) + b"INFO"
    assert seconds_of(tmp_path / "a.wav", with_tags) == 6.0
    assert reason_of(tmp_path / "a.wav", changed(22, b"\0\0")) == "no channels"
    assert reason_of(tmp_path / "a.wav", changed(24, struct.pack("<I", 1))) == "impossible rate"
    soundfile.write(tmp_path / "a.wav", np.ones(48000) / 2, 24000, format="RF64", subtype="PCM_16")
    assert reason_of(tmp_path / "a.wav", (tmp_path / "a.wav").read_bytes()[:50000]) == "truncated"


@pytest.mark.parametrize("kind", ["wav", "ogg"])
def test_a_header_without_audio(tmp_path: Path, kind: str) -> None:
    soundfile.write(tmp_path / f"a.{kind}", np.zeros((0, 2)), 48000, **FORMATS[kind])
    assert reason_of(tmp_path / f"a.{kind}") == "empty"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite(tmp_path: Path, value: float) -> None:
    wave = np.random.default_rng(4).uniform(-1, 1, (96000, 2))
    wave[77777, 1] = value
    soundfile.write(tmp_path / "a.wav", wave, 24000, subtype="FLOAT")
    assert reason_of(tmp_path / "a.wav") == "not finite"


def test_unreadable(tmp_path: Path) -> None:
    (tmp_path / "link.wav").symlink_to(tmp_path / "nowhere.wav")
    (tmp_path / "self.wav").symlink_to(tmp_path / "self.wav")
    (tmp_path / "folder.wav").mkdir()
    os.mkfifo(tmp_path / "pipe.wav")
    for name in ("missing.wav", "link.wav", "self.wav", "folder.wav", "pipe.wav"):
        assert reason_of(tmp_path / name) == "unreadable", name


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_forbidden(tmp_path: Path, whole: dict[str, bytes]) -> None:
    (tmp_path / "a.wav").write_bytes(whole["wav"])
    (tmp_path / "a.wav").chmod(0)
    assert reason_of(tmp_path / "a.wav") == "unreadable"
