"""Does a file hold all the audio that it promises? libsndfile shortens a truncated file without a word.

What can be seen: RIFF states the length of its samples; every Ogg page has a length and a checksum, and the last page
an end mark (RFC 3533); MP3 frames have lengths of their own, and a cut between two of them shows in the Xing header
alone. FLAC states its samples, and its decoder notices what is missing.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO

from mert_core.audio.errors import UnusableAudio

_BITRATES = {  # kbit/s by (MPEG-1?, layer)
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # by version bits
_SLACK_FRAMES = 4  # encoder delay, padding, and frames that a decoder needs before its first


@dataclass(frozen=True)
class MpegStream:
    """What the frames of a file promise.

    Attributes:
        samples: per channel, in all whole frames.
        slack_samples: how many fewer a good decoder may give.
        repaired: the frames behind a header with their true number, where libsndfile would stop early; else None.
    """

    samples: int
    slack_samples: int
    repaired: bytes | None


@dataclass(frozen=True)
class _Frame:
    header: bytes
    length_bytes: int  # 0: free format
    samples: int

    @property
    def kind(self) -> tuple[int, int]:
        """Version, layer and sample rate: the same for all frames of a file."""
        return self.header[1] & 0xFE, self.header[2] >> 2 & 3


def read_mpeg(data: mmap.mmap) -> MpegStream | None:
    """Walk all frames. A first frame counts only when another of its kind follows it.

    Returns:
        What was found; None if no frame or one of free format, which states no length, was found.

    Raises:
        UnusableAudio: frames are missing, or the last one is not whole.
    """
    at = 0
    while data[at : at + 3] == b"ID3" and at + 10 <= len(data):  # tags before the audio
        sizes, footer = data[at + 6 : at + 10], 10 if data[at + 5] & 0x10 else 0
        at += 10 + (sizes[0] << 21 | sizes[1] << 14 | sizes[2] << 7 | sizes[3]) + footer
    if at >= len(data):
        raise UnusableAudio("truncated", "the file ends before its audio begins")
    first: _Frame | None = None
    frames, promised, begin, synced, cut = 0, None, 0, False, False
    while at < len(data) - 3:
        frame = _frame_at(data, at)
        if frame is not None and frame.length_bytes == 0 and first is None:
            return None
        if frame is not None and not synced and not _has_witness(data, at, frame):
            frame = None
        if frame is None or frame.length_bytes == 0 or (first is not None and frame.kind != first.kind):
            synced = False
            at = data.find(b"\xff", at + 1)
            if at < 0:
                break
            continue
        if at + frame.length_bytes > len(data):
            cut = True
            break
        if first is None:
            first, begin = frame, at
            promised = _xing_frames(data[at : at + min(frame.length_bytes, 64)])
            if promised is not None:
                frames, begin = -1, at + frame.length_bytes  # that frame holds no audio
        frames, synced, at = frames + 1, True, at + frame.length_bytes
    if first is None:
        return None
    if promised and frames < promised - 1:
        raise UnusableAudio("truncated", f"{frames} of {promised} MPEG frames are there")
    if cut and not (promised and frames >= promised):
        raise UnusableAudio("truncated", "the last MPEG frame is not whole")
    wrong = not promised or frames > promised + 1
    repaired = _xing_frame(first, frames) + data[begin : at if at > 0 else len(data)] if wrong else None
    return MpegStream(frames * first.samples, _SLACK_FRAMES * first.samples, repaired)


def _frame_at(data: mmap.mmap, at: int) -> _Frame | None:
    header = data[at : at + 4]
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    bitrate, rate = header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or layer == 4 or bitrate == 15 or rate == 3:
        return None
    samples = {1: 384, 2: 1152, 3: 1152 if version == 3 else 576}[layer]
    if bitrate == 0:
        return _Frame(header, 0, samples)
    bits_per_second, hertz = 1000 * _BITRATES[version == 3, layer][bitrate], _RATES[version][rate]
    padded = header[2] >> 1 & 1
    if layer == 1:
        return _Frame(header, (12 * bits_per_second // hertz + padded) * 4, samples)
    return _Frame(header, samples // 8 * bits_per_second // hertz + padded, samples)


def _has_witness(data: mmap.mmap, at: int, frame: _Frame) -> bool:
    following = _frame_at(data, at + frame.length_bytes) if frame.length_bytes else None
    return following is not None and following.kind == frame.kind


def _xing_frames(head: bytes) -> int | None:
    """Return the number of frames that a Xing or Info header promises; 0 if it has none; None: no such header."""
    mark = max(head.find(b"Xing"), head.find(b"Info"))
    if mark < 0 or mark + 12 > len(head):
        return None
    flags, frames = struct.unpack(">II", head[mark + 4 : mark + 12])
    return frames if flags & 1 else 0


def _xing_frame(like: _Frame, frames: int) -> bytes:
    """Return a silent frame that states how many frames follow. Only layer III has such a thing."""
    version, layer = like.header[1] >> 3 & 3, 4 - (like.header[1] >> 1 & 3)
    if layer != 3:
        return b""
    # no checksum, 128 (MPEG-1) or 80 kbit/s, no padding
    header = bytes([0xFF, like.header[1] | 1, 9 << 4 | like.header[2] & 0x0C, like.header[3]])
    mono = like.header[3] >> 6 == 3
    side_bytes = {(True, True): 17, (True, False): 32, (False, True): 9, (False, False): 17}[version == 3, mono]
    rate = _RATES[version][like.header[2] >> 2 & 3]
    length = like.samples // 8 * 1000 * _BITRATES[version == 3, 3][9] // rate
    return (header + bytes(side_bytes) + b"Info" + struct.pack(">II", 1, frames)).ljust(length, b"\0")


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
        # Ogg's CRC-32 has zlib's polynomial, but highest bit first and without inversion.
        mirrored = (page[:22] + b"\0\0\0\0" + page[26:]).translate(_REVERSED_BITS)
        checksum = int(f"{zlib.crc32(mirrored, 0xFFFFFFFF) ^ 0xFFFFFFFF:032b}"[::-1], 2)
        if checksum != struct.unpack("<I", page[22:26])[0]:
            raise UnusableAudio("damaged", f"the Ogg page at byte {at} does not match its checksum")
        ended = bool(head[5] & 0x04)
        at += length
    if not ended:
        raise UnusableAudio("truncated", "the last Ogg page has no end-of-stream mark")
