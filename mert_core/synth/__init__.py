"""The demo corpus and the probe set: scores of music21's corpus, performed and rendered, with true labels.

`library` chooses pieces and splits them by work; `pieces` turns each score into a `Piece` of compact notes. For a
track, `performance` draws an excerpt and how it is played (tempo, transposition, instruments, dynamics), `render`
plays it with a SoundFont, stem by stem, and `track` sets the level and writes down notes, beats and labels; `labels`
derives keys from what is written. `generate` makes the corpus' tracks and, with `phrases` and `stems`, the probe set's
items, in order, on several processes. Every random choice comes from `rng`: one generator per track.
"""

from mert_core.synth.card import data_card
from mert_core.synth.generate import count_corpus, count_probe_set, perform_corpus, perform_probe_set

__all__ = ["count_corpus", "count_probe_set", "data_card", "perform_corpus", "perform_probe_set"]
