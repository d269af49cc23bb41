"""The data card of performed scores: origin, licence, how made, how many."""

from __future__ import annotations

from typing import Any

from mert_core.config import Config
from mert_core.data.statistics import size_table
from mert_core.synth.instruments import FAMILIES, NOTE_FAMILIES, NOTE_HIGHEST, NOTE_LOWEST
from mert_core.synth.phrases import PERFORMERS, TECHNIQUES
from mert_core.synth.render import load_soundfont
from mert_core.synth.stems import ROLES

_ORIGIN = """
| class | scores in music21's corpus | encoding |
|---|---|---|
| bach | chorales | MusicXML |
| beethoven | string quartets | MusicXML |
| haydn-mozart | string quartets and a sonata; Haydn alone has too few works there for three splits | MusicXML |
| monteverdi | madrigals, books 3 to 5 | MusicXML |
| palestrina | movements of masses | Humdrum, 2000 John Miller |
| trecento | Italian songs of the 14th century | MusicXML |
| essen | European songs of the Essen collection (H. Schaffrath, E. Dahlig-Turek; ABC: S. Schlien) | ABC |
| ryan | American fiddle tunes of Ryan's Mammoth Collection (ABC: R. Davies) | ABC |
"""

_LICENCE = """
**Scores.** music21's code is BSD-3-Clause, its corpus is not. The package's `corpus/license.txt` says that the
encodings are distributed with permission of their encoders, that to its authors' best knowledge each piece is out
of copyright in the United States or licensed for use, and that some may not be used commercially; what binds is
written in each file or folder. Two such notes among the classes here: the Essen collection
(`essenFolksong/license.txt`: legal status unclear, permission for non-commercial distribution and use) and
Palestrina's masses (in the files: rights to derivative electronic formats reserved, see the licence they name).

**Sound.** `TimGM6mb.sf2`, a General MIDI SoundFont attributed to Tim Brechbill, as the package pretty_midi ships it.
pretty_midi (MIT) says nothing of its own about the file; Debian's package timgm6mb-soundfont distributes a SoundFont
of this name under GPL-2.

So: made for research on your own machine, from packages you have installed. No audio is in the repository. Ask
before you publish the sound or use it commercially.
"""


def data_card(config: Config, kind: str, facts: dict[str, Any]) -> str:
    """Return the data card of a ``corpus`` or ``probe_set``; ``facts`` are the manifest's figures in its record."""
    scores = config.corpus.scores
    title, what = "Performed scores to probe on", _probe_text(config)
    if kind == "corpus":
        title = "Performed scores to pre-train on"
        what = (
            f"Excerpts of {scores.track_seconds:g} s, {scores.minutes:g} minutes in all, played by a sampler from "
            "scores; all composers equally often."
        )
    return f"""\
# Data card: {title}

{what}

{size_table(facts)}

Clipped samples: {facts["clipped_samples"]:,}.

## Origin
{_ORIGIN}
## Licence
{_LICENCE}
## How it was made

{_making(config)}
"""


def _probe_text(config: Config) -> str:
    probe_set = config.probe_set
    shared = len(PERFORMERS) - len({one.program for one in PERFORMERS})
    held_out = ", ".join(one.name for one in PERFORMERS if one.held_out)
    return f"""\
Labelled music for the proxies of the fourteen tasks; docs/proxies.md says how each label follows from the score.

- `mix`: excerpts of {probe_set.mix_seconds:g} s with a certain key, and with composer, instruments, moods, genres,
  density and register.
- `note`: single notes of the scores in {probe_set.note_seconds:g} s with a pitch ({NOTE_LOWEST} to {NOTE_HIGHEST}) and
  one of {len(NOTE_FAMILIES)} instrument families ({", ".join(NOTE_FAMILIES)}).
- `rhythm`: excerpts of {probe_set.rhythm_seconds:g} s whose beats are equally far apart and heard.
- `phrase`: {probe_set.phrase_seconds:g} s of a single line, played with one of {len(TECHNIQUES)} techniques
  ({", ".join(TECHNIQUES)}) by one of {len(PERFORMERS)} performers, of whom {shared} pairs share an instrument.
  Techniques are asked of {held_out} in the test split alone.
- `stem:mix`, {", ".join(f"`stem:{role}`" for role in ROLES)}: {probe_set.stem_seconds:g} s of music in three or more
  parts with percussion on its beats, and the four stems whose int16 samples add up to it; `mix` names the mixture."""


def _making(config: Config) -> str:
    programs = sum(len(family) for family in FAMILIES.values())
    return f"""\
- Seed {config.seed}: pieces, splits and every choice of a performance follow from it, each track from its own number.
- Up to {config.pieces.per_composer} pieces per class, of the files that are quick to parse. Notes as written: ties
  merged; grace notes, chord symbols and unpitched percussion left out; repeats not played; a piece shorter than its
  excerpt begins again.
- Splits by work ({config.pieces.train:g} train, {config.pieces.valid:g} valid, the rest test, within each class):
  movements of one work, and works that begin with the same melody in any transposition, are never in two splits.
- An excerpt begins with a measure. Transposition by -6 to +5 semitones, tempo, articulation, dynamics, panorama,
  gain of each part and level of the whole are random. So are the instruments: one of {programs} programs in
  {len(FAMILIES)} families for each part, among those that reach its notes, whoever wrote them. What no instrument
  reaches moves by octaves.
- Key: the signature leaves a major key and its relative minor; a written minor is believed, otherwise the whole
  piece decides (Krumhansl and Schmuckler). It stands only if the excerpt's own notes, among all 24 keys, agree;
  else -1, as with church modes and with parts whose signatures differ.
- Sound: the samples, loops, tunings and volume envelopes of `TimGM6mb.sf2`, without filters, modulators and effects
  (SHA-256 {load_soundfont().sha256}); 24 kHz; mono is the mean of two
  channels; the mix is the sum of one stem per part. Scaled to between -28 and -16 dB RMS, and down where a peak
  would come too near full scale."""
