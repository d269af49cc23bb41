"""What targets are: codes of codebooks, or a spectrum."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Codes:
    """A teacher's labels: one code per codebook and frame, each one of so many entries."""

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
    """Targets that are regressed: so many values per frame."""

    bins: int

    @property
    def width(self) -> int:
        """Numbers per frame."""
        return self.bins

    def __str__(self) -> str:
        return f"{self.bins} bins"


TargetKind = Codes | Spectrum
