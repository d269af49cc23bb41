"""What targets are: codes of codebooks, or a spectrum."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Codes:
    """A teacher that labels every frame with one code per codebook.

    Attributes:
        codebooks: codes per frame.
        entries: values of a code.
    """

    codebooks: int
    entries: int

    @property
    def width(self) -> int:
        """Numbers per frame."""
        return self.codebooks

    def __str__(self) -> str:
        return f"{self.codebooks} × {self.entries} codes"


@dataclass(frozen=True)
class Spectrum:
    """A teacher whose targets are regressed.

    Attributes:
        bins: values per frame.
    """

    bins: int

    @property
    def width(self) -> int:
        """Numbers per frame."""
        return self.bins

    def __str__(self) -> str:
        return f"{self.bins} bins"


TargetKind = Codes | Spectrum
