"""The demo corpus and the probe set: scores of music21's corpus, performed and rendered, with true labels.

`library` chooses pieces and splits them by work; `parse` turns each score into a `Piece` of compact notes. For a
track, `performance` draws an excerpt and how it is played (tempo, transposition, instruments, dynamics), `render`
plays it with a SoundFont, stem by stem, and `track` sets the level and writes down notes, beats and labels; `labels`
and `descriptors` derive key, moods and genres from what is written. `items`, `phrases` and `stems` make the probe
set's kinds of items; `generate` runs all of this in order, on several processes. Every random choice comes from
`rng`: one generator per track.
"""

from mert_core.synth.card import data_card
from mert_core.synth.generate import corpus_track, count_corpus, count_probe_set, perform_corpus, perform_probe_set
from mert_core.synth.items import mix_item, note_item, rhythm_item
from mert_core.synth.library import Library, load_library
from mert_core.synth.phrases import phrase_item
from mert_core.synth.render import mix_mono, render_stems
from mert_core.synth.stems import stem_items

__all__ = [
    "Library",
    "corpus_track",
    "count_corpus",
    "count_probe_set",
    "data_card",
    "load_library",
    "mix_item",
    "mix_mono",
    "note_item",
    "perform_corpus",
    "perform_probe_set",
    "phrase_item",
    "render_stems",
    "rhythm_item",
    "stem_items",
]
