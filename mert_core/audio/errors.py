"""What can be wrong with an audio file."""

from __future__ import annotations

from typing import Literal

from mert_core.errors import MertError

Reason = Literal[
    "unreadable",  # the operating system refuses
    "empty",  # no bytes, or a header with no audio behind it
    "not audio",  # no format that is known
    "truncated",  # less audio than the file's own header or end mark promises, or a decoder that gave up
    "damaged",  # its own checksums say so
    "no channels",
    "impossible rate",
    "not finite",  # NaN or infinity among the samples
    "silent",
    "too short",
    "duplicate",
]


class UnusableAudio(MertError):
    """A file that must not enter the corpus.

    Attributes:
        reason: one of a few fixed words, to count by.
        detail: evidence, without absolute paths.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: Reason = reason
        self.detail = detail
