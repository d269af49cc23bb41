"""Targets computed in the step: of the crop alone, or of what the teacher must hear, and then as of the whole track."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mert_core.config import PretrainConfig
from mert_core.features.mel import chroma
from mert_core.teachers.base import Teacher
from mert_core.teachers.codec.encode import CodecTeacher
from mert_core.teachers.codec.model import Architecture, RvqVae
from mert_core.teachers.codec.train import condition
from mert_core.training.batches import CropSource
from mert_core.training.targets import TargetSet
from mert_core.training.trainer import unigram_cross_entropy
from tests.training.music import Tones, TonesCodes, TonesMusic, params


def codec() -> CodecTeacher:
    """A teacher whose memory has no end, with entries that the tones use."""
    shape = Architecture(codebooks=2, entries=16, filters=2, dimension=8)
    pcm = torch.from_numpy(TonesMusic(2.0).pcm[:4].astype(np.float32) / 32768)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = RvqVae(shape).eval()
        condition(model, pcm)
        model.start_codebooks(model.encoder(pcm.unsqueeze(1)).detach())
    return CodecTeacher(None, shape, 2).adopt(model)


class Whole(TonesCodes):
    """A teacher's targets of whole tracks, stored."""

    def __init__(self, teacher: Teacher, music: TonesMusic) -> None:
        self.kind = teacher.kind
        self.table = teacher(torch.from_numpy(music.pcm.astype(np.float32) / 32768)).numpy()


def source(run: PretrainConfig, stored: Mapping[str, Any], teachers: Mapping[str, Teacher]) -> CropSource:
    return CropSource(Tones(4.0).open().music, TargetSet(run.teachers, stored, teachers), run, "train", 0)


def targets(kind: str, names: list[str]) -> tuple[dict[str, Tensor], CropSource]:
    music = Tones(4.0).open()
    teachers: dict[str, Teacher] = {**music.teachers, "codec": codec()}
    terms = [{"teacher": name, "targets": kind, "weight": 1.0} for name in names]
    stored = {name: Whole(teachers[name], music.music) for name in names} if kind == "stored" else {}
    cut = source(params(teachers=terms), stored, teachers)
    return cut.target_set(cut.batch(4, 4, range(4))), cut


def test_online_equals_stored() -> None:
    names = ["codec", "cqt", "logmel", "chroma"]
    (stored, _), (online, cut) = targets("stored", names), targets("online", names)
    assert torch.equal(online["codec"], stored["codec"]) and len(stored["codec"].unique()) > 8
    for name in names[1:]:
        distance = (online[name] - stored[name]).norm() / stored[name].norm()
        assert distance < cut.target_set.teacher(name).tolerance, name
    valid = unigram_cross_entropy(cut, cut, 4, torch.device("cpu"))
    assert len(valid["codec"]) == 2 and all(0 < nats < 4 for nats in valid["codec"])


def test_a_crop_alone_is_another_thing() -> None:
    (crop, _), (online, _) = targets("crop", ["cqt", "chroma"]), targets("online", ["cqt", "chroma"])
    assert (crop["cqt"] - online["cqt"]).norm() > 0.05 * online["cqt"].norm()
    torch.testing.assert_close(crop["chroma"], chroma(crop["cqt"]))


def test_a_spectrum_is_computed_once_for_what_is_derived_from_it() -> None:
    music = Tones().open()
    calls = []
    for name in ("cqt", "chroma"):
        own = music.teachers[name].constant_q
        own.register_forward_hook(lambda *_, name=name: calls.append(name))
    terms = [{"teacher": name, "targets": "crop", "weight": 1.0} for name in ("cqt", "chroma")]
    cut = source(params(teachers=terms), {}, music.teachers)
    computed = cut.target_set(cut.batch(0, 2, range(2)))
    assert calls == ["cqt"] and computed["chroma"].shape == (*computed["cqt"].shape[:2], 48)
