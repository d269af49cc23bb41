"""Musical teachers that are fitted on nothing: spectra to regress."""

from __future__ import annotations

import torch
from torch import Tensor

from mert_core.data.target_kinds import Spectrum
from mert_core.features.beat_tracking import beat_frames, onset_strength
from mert_core.features.cqt import CQT_BINS, ConstantQ
from mert_core.features.mel import CHROMA_BINS, MEL_BINS, LogMel, chroma
from mert_core.teachers.base import Teacher, whole_frames

# Half of the longest constant-Q filter is 25,230 samples, 79 frames; band-limiting makes the filters ring past that.
_CQT_CONTEXT = 112
# Half of a window of 2,048 samples is 3.2 frames.
MEL_CONTEXT = 4


class ConstantQTeacher(Teacher):
    """Constant-Q magnitudes, linear, 336 bins: MERT's musical teacher (section 3.2), on nnAudio's scale."""

    name = "cqt"
    title = "constant-Q spectrum (MERT; nnAudio CQT1992v2)"
    kind = Spectrum(CQT_BINS)
    context_frames: int | None = _CQT_CONTEXT
    speed = 600.0
    tolerance = 1e-4

    def __init__(self, settings: None = None) -> None:
        super().__init__(settings)
        self.constant_q = ConstantQ()

    @torch.no_grad()
    def forward(self, waveform: Tensor) -> Tensor:
        """Map (batch, samples) to (batch, frames, 336)."""
        return self.constant_q(waveform)[:, : whole_frames(waveform)]


class ChromaTeacher(ConstantQTeacher):
    """48 pitch classes, folded from the constant-Q spectrum."""

    name = "chroma"
    title = "chroma, 48 pitch classes"
    kind = Spectrum(CHROMA_BINS)
    derived_from = "cqt"

    @torch.no_grad()
    def forward(self, waveform: Tensor) -> Tensor:
        """Map (batch, samples) to (batch, frames, 48)."""
        return self.derive(super().forward(waveform))

    def derive(self, targets: Tensor) -> Tensor:
        """Fold (…, 336) constant-Q magnitudes."""
        return chroma(targets)


class LogMelTeacher(Teacher):
    """Log-mel spectrum of 128 bands: the mel loss that MERT's code has as an option."""

    name = "logmel"
    title = "log-mel spectrum, 128 bands (MERT's mel loss)"
    kind = Spectrum(MEL_BINS)
    context_frames = MEL_CONTEXT
    speed = 1000.0

    def __init__(self, settings: None = None) -> None:
        super().__init__(settings)
        self.log_mel = LogMel()

    @torch.no_grad()
    def forward(self, waveform: Tensor) -> Tensor:
        """Map (batch, samples) to (batch, frames, 128)."""
        return self.log_mel(waveform)[:, : whole_frames(waveform)]


class BeatChromaTeacher(ChromaTeacher):
    """Chroma averaged over each beat (Ellis and Poliner 2007): what harmony sounds, but for ornament and articulation.

    Beats are tracked over the whole track (`mert_core.features.beat_tracking`). All frames from one beat to the next,
    as well as those before the first and after the last, have the mean chroma of that stretch as their target.
    """

    name = "beat-chroma"
    title = "beat-synchronous chroma, 48 pitch classes (Ellis and Poliner)"
    speed = 200.0
    context_frames = None

    def __init__(self, settings: None = None) -> None:
        super().__init__(settings)
        self.log_mel = LogMel(precision=torch.float64)

    @torch.no_grad()
    def forward(self, waveform: Tensor) -> Tensor:
        """Map whole tracks (batch, samples) to (batch, frames, 48)."""
        chroma = super().forward(waveform)
        strength = onset_strength(self.log_mel(waveform)[:, : chroma.shape[1]])
        for row, onsets in zip(chroma, strength, strict=True):
            starts = torch.zeros(len(row), dtype=torch.int64, device=row.device)
            starts[torch.from_numpy(beat_frames(onsets.cpu().numpy())).to(row.device)] = 1
            beat = starts.cumsum(0)
            sums = row.new_zeros(int(beat[-1]) + 1, row.shape[1]).index_add_(0, beat, row)
            row.copy_((sums / torch.bincount(beat, minlength=len(sums)).clamp(min=1)[:, None])[beat])
        return chroma
