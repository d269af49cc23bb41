"""The demo corpus: real scores of music21's corpus, really played, with true labels."""

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
