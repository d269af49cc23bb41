"""Does a file hold all the audio that it promises? libsndfile shortens a truncated file without a word.

What can be seen: RIFF states the length of its samples; every Ogg page has a length and a checksum, and the last page
an end mark (RFC 3533); for MP3 see `mert_core.audio.mpeg`. FLAC states its samples, and its decoder notices what is
missing.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from typing import BinaryIO

from mert_core.audio.mpeg import MpegStream, read_mpeg
from mert_core.audio.unusable import UnusableAudio

_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def check_container(stream: BinaryIO, size_bytes: int) -> MpegStream | None:
    """Check a file's container by its own marks.

    Returns:
        What its MPEG frames promise; None for all other formats, whose length libsndfile reads truly.

    Raises:
        UnusableAudio: the file is shorter than it says, damaged, or says that it has no channels.
    """
    magic = stream.read(12)
    if magic[:4] in (b"RIFF", b"RIFX", b"RF64") and magic[8:] == b"WAVE":
        _check_riff(stream, size_bytes, ">" if magic[:4] == b"RIFX" else "<")
        return None
    is_mpeg = magic[:3] == b"ID3" or (len(magic) > 1 and magic[0] == 0xFF and magic[1] & 0xE0 == 0xE0)
    if is_mpeg or magic[:4] == b"OggS":
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if is_mpeg:
                return read_mpeg(data)
            _check_ogg(data)
    return None


def _check_riff(stream: BinaryIO, size_bytes: int, order: str) -> None:
    position, long_data_bytes = 12, None
    while True:
        stream.seek(position)
        head = stream.read(8)
        if len(head) < 8:
            raise UnusableAudio("truncated", "the file ends before its samples begin")
        name, length = head[:4], struct.unpack(f"{order}I", head[4:])[0]
        if name == b"ds64":
            body = stream.read(16)
            long_data_bytes = struct.unpack("<8xQ", body)[0] if len(body) == 16 else None
        elif name == b"fmt ":
            body = stream.read(4)
            if len(body) == 4 and struct.unpack(f"{order}2xH", body)[0] == 0:
                raise UnusableAudio("no channels", "the header says 0 channels")
        elif name == b"data":
            present = size_bytes - position - 8
            if long_data_bytes is not None and length == 0xFFFFFFFF:
                length = long_data_bytes
            elif length >= 0x7FFFF000 > present:  # what sox and ffmpeg write when they write to a pipe
                return
            if length > present:
                raise UnusableAudio("truncated", f"{present} of {length} bytes of samples are there")
            return
        position += 8 + length + length % 2


def _check_ogg(data: mmap.mmap) -> None:
    at, ended = 0, False
    while at < len(data):
        head = data[at : at + 27]
        if head[:4] != b"OggS"[: len(head)]:
            if ended:
                return  # something, a tag for example, behind the end of the stream
            raise UnusableAudio("damaged", f"no Ogg page where one should begin, at byte {at}")
        segments = data[at + 27 : at + 27 + head[26]] if len(head) == 27 else b""
        length = 27 + len(segments) + sum(segments)
        if len(head) < 27 or len(segments) < head[26] or at + length > len(data):
            raise UnusableAudio("truncated", "the last Ogg page is not whole")
        page = data[at : at + length]
        if _ogg_checksum(page[:22] + b"\0\0\0\0" + page[26:]) != struct.unpack("<I", page[22:26])[0]:
            raise UnusableAudio("damaged", f"the Ogg page at byte {at} does not match its checksum")
        ended = bool(head[5] & 0x04)
        at += length
    if not ended:
        raise UnusableAudio("truncated", "the last Ogg page has no end-of-stream mark")


def _ogg_checksum(page: bytes) -> int:
    """Return Ogg's CRC-32: zlib's polynomial, but highest bit first and without inversion."""
    mirrored = zlib.crc32(page.translate(_REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)
