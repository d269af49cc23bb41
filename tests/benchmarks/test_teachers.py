"""The teachers that are timed give what the packages give that they are timed against."""

from __future__ import annotations

import pytest
import torch

from benchmarks.comparators.cqt import librosa_cqt
from benchmarks.comparators.encodec import serial
from benchmarks.figures import cqt, encodec
from benchmarks.music import melodies
from mert_core.features.cqt import ConstantQ


def test_encodec_gives_the_codes_of_the_package() -> None:
    teacher, other = encodec.sides(melodies(1, 6.0, seed=1))
    songs = melodies(3, 1.9)
    codes = serial(other, songs)
    assert codes.shape == (3, 143, encodec.CODEBOOKS)
    assert encodec.check_equal(teacher, songs, encodec.ours(teacher, songs, each=2), codes) == 0
    changed = codes.clone()
    changed[2, 7, 3] += 1
    with pytest.raises(AssertionError, match=r"song 2, frame 7: .* not because of a tie"):
        encodec.check_equal(teacher, songs, changed, codes)
    teacher.model.quantizer.vq.layers[3]._codebook.embed[changed[2, 7, 3]] = teacher.model.quantizer.vq.layers[
        3
    ]._codebook.embed[codes[2, 7, 3]]
    assert encodec.check_equal(teacher, songs, changed, codes) == 1
    with pytest.raises(AssertionError, match="too few"):
        encodec.check_equal(teacher, songs, torch.zeros_like(codes), torch.zeros_like(codes))


def test_the_constant_q_transform_is_nnaudios() -> None:
    assert cqt.difference(melodies(2, 0.7)) > 0


def test_librosas_transform_has_the_same_bins_and_scale() -> None:
    song = melodies(1, 2.0)
    ours, theirs = ConstantQ()(song)[0], torch.from_numpy(librosa_cqt(song[0].numpy())).t()
    assert ours.shape == theirs.shape
    assert (ours - theirs).norm() < 0.05 * ours.norm()
