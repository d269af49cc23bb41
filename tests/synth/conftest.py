from collections.abc import Callable

import pytest

from mert_core.data.track import SourceTrack
from mert_core.synth.pieces import Bar, KeySignature, Part, Piece
from tests.performed import items, library, scores_cache, scores_config

__all__ = ["items", "library", "scores_cache", "scores_config"]


def line_piece(pitches: tuple[int, ...], *keys: KeySignature, score: str = "", group: str = "") -> Piece:
    """Return a piece of quarter notes in common time."""
    part = Part(tuple(map(float, range(len(pitches)))), (1.0,) * len(pitches), pitches)
    bars = tuple(
        Bar(4.0 * bar, 4.0, tuple(4.0 * bar + beat for beat in range(4)), True) for bar in range(len(pitches) // 4)
    )
    return Piece((part,), bars, keys or (KeySignature(0.0, 0, None),), 120.0, score, "bach", group)


@pytest.fixture
def of_kind(items: list[SourceTrack]) -> Callable[[str], list[SourceTrack]]:
    """The items of a kind, or of all that begin with it."""
    return lambda kind: [item for item in items if item.labels and item.labels["kind"].startswith(kind)]
