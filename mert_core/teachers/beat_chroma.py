"""Beat-synchronous chroma: the musical teacher that shows how little a new one takes."""

from __future__ import annotations

import torch
from torch import Tensor

from mert_core.audio.beats import beat_frames, onset_strength
from mert_core.audio.spectra import LogMel
from mert_core.teachers.spectra import ChromaTeacher


class BeatChromaTeacher(ChromaTeacher):
    """Chroma averaged over each beat (Ellis and Poliner 2007): what harmony sounds, but for ornament and articulation.

    Beats are tracked over the whole track (`mert_core.audio.beats`). All frames from one beat to the next, as well as
    those before the first and after the last, have the mean chroma of that stretch as their target.
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
