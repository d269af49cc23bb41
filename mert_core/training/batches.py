"""Batches for pre-training. A crop, its mask and its noise are pure functions of (seed, epoch, index)."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from mert_core.audio.grid import HOP_SAMPLES, SAMPLE_RATE, student_frames
from mert_core.data.sampler import Crops, Music
from mert_core.data.target_kinds import TargetKind
from mert_core.errors import MertError
from mert_core.parallel import single_threads
from mert_core.teachers.base import Teacher
from mert_core.training.batch import Batch, TeacherContext
from mert_core.training.corruption import Snippet, draw_snippets, span_masks
from mert_core.training.targets import TargetSet
from mert_core.training.worker import Worker

if TYPE_CHECKING:
    from mert_core.config import PretrainConfig


Rows = NDArray[np.int64]
_SPLITS = {"train": 0, "valid": 1, "test": 2}
_CROP, _MASK, _MIXTURE, _EPOCH, _CODEBOOK = range(5)  # independent random streams of one item


class StoredTargets(Protocol):
    """One teacher's stored targets; ``mert_core.targets.TargetStore`` is one."""

    @property
    def kind(self) -> TargetKind:
        """Return what the targets are."""

    def read(self, rows: Rows, offset_frames: Rows, frames: int) -> NDArray[Any]:
        """Return (batch, frames, width): int64 codes, or float32."""


class CropSource:
    """Batches of one split.

    An epoch visits every track once per full crop length it holds, in an order of its own, each time at a random place
    on the 320-sample grid, where codes and samples align exactly.

    Args:
        music: what to cut from.
        stored: targets by teacher, for the lessons whose targets are stored.
        teaching: the run's lessons.
        params: of the run.
        split: train, valid or test.
        seed: of crops, masks and noise.
        corrupt: whether the student hears a noise mixture.

    Raises:
        MertError: no track of the split is as long as a crop.
    """

    def __init__(
        self,
        music: Music,
        stored: Mapping[str, StoredTargets],
        teaching: TargetSet,
        params: PretrainConfig,
        split: str,
        seed: int,
        *,
        corrupt: bool = True,
    ) -> None:
        self.music, self.stored, self.teaching, self.params, self.corrupt = music, stored, teaching, params, corrupt
        self.crop_samples = crop_samples(params.crop_seconds)
        self.frames = student_frames(self.crop_samples)
        self._seed = (seed, _SPLITS[split])
        rows = np.asarray(music.rows(split), dtype=np.int64)
        samples = np.asarray(music.samples, dtype=np.int64)
        streams = {"order": (*self._seed, _EPOCH), "place": (*self._seed, _CROP)}
        self._crops = Crops(rows, samples, self.crop_samples, **streams)
        if not len(self._crops):
            raise MertError(
                f"no track of the {split} split is as long as a crop ({params.crop_seconds:g} s): it has {len(rows)} "
                f"track(s), the longest of {samples[rows].max(initial=0) / SAMPLE_RATE:.2f} s. Shorten "
                "pretrain.crop_seconds or add music."
            )
        low_samples, high_samples = (min(round(s * SAMPLE_RATE), self.crop_samples) for s in params.mixture_seconds)
        self._snippet_samples = low_samples, high_samples

    def __len__(self) -> int:
        """Return the number of crops in an epoch."""
        return len(self._crops)

    def _generator(self, stream: int, position: int) -> np.random.Generator:
        epoch, index = divmod(position, len(self))
        return np.random.default_rng((*self._seed, stream, epoch, index))

    def locate(self, positions: Rows) -> tuple[Rows, Rows]:
        """Return the track rows and sample offsets of crops, given positions counted from the start of training."""
        return self._crops.locate(positions)

    def codes(self, teacher: str, positions: Rows) -> NDArray[np.int64]:
        """Return a teacher's codes (batch, frames, codebooks) of crops alone."""
        if teacher in self.stored:
            rows, offsets = self.locate(positions)
            return self.stored[teacher].read(rows, offsets // HOP_SAMPLES, self.frames)
        wanted = {teacher: self.teaching.codes[teacher]}
        batches = (self.batch(int(position), 1, range(1)) for position in positions)
        return np.concatenate([self.teaching.targets(batch, wanted)[teacher].numpy() for batch in batches])

    def batch(self, first: int, clips: int, own: range) -> Batch:
        """Return a worker's share of the global batch of ``clips`` crops that begins at position ``first``.

        Args:
            first: position of the global batch's first crop, counted from the start of training.
            clips: crops of the global batch, over all workers.
            own: the worker's crops within it.
        """
        positions = np.arange(first, first + clips, dtype=np.int64)
        mine = positions[own.start : own.stop]
        snippets = self._snippets(mine, own, clips)
        needed = sorted(set(own) | {snippet.source for row in snippets for snippet in row})
        rows, offsets = self.locate(positions[needed])
        sound = np.empty((len(needed), self.crop_samples), dtype=np.float32)
        self.music.crops(rows, offsets, self.crop_samples, sound)
        place = {clip: number for number, clip in enumerate(needed)}
        own_places = [place[clip] for clip in own]
        clean = sound[own_places]
        noisy = clean.copy()
        for target, row in zip(noisy, snippets, strict=True):
            for s in row:
                source = sound[place[s.source]]
                target[s.start : s.start + s.samples] += source[s.source_start : s.source_start + s.samples]
        own_rows, own_frames = rows[own_places], offsets[own_places] // HOP_SAMPLES
        masks = self._masks(positions, own)
        stored, heard = {}, {}
        for lesson in self.teaching.lessons:
            name = lesson.teacher
            if lesson.targets == "stored":
                read = self.stored[name].read(own_rows, own_frames, self.frames)
                stored[name] = torch.from_numpy(np.ascontiguousarray(read))
            elif lesson.targets == "online":
                heard[name] = self._heard(self.teaching.teachers[name], own_rows, own_frames)
        return Batch(
            torch.from_numpy(noisy),
            torch.from_numpy(clean),
            torch.from_numpy(masks),
            int(masks.sum()),
            self.asked(first),
            stored,
            heard,
        )

    def _heard(self, teacher: Teacher, rows: Rows, first_frames: Rows) -> TeacherContext:
        """Return the stretches of tracks that a teacher must hear to label crops."""
        stretches, skip = [], []
        for row, first in zip(rows.tolist(), first_frames.tolist(), strict=True):
            begin, end = teacher.hears(first, self.frames, int(self.music.samples[row]) // HOP_SAMPLES)
            stretch = np.empty((1, (end - begin) * HOP_SAMPLES), dtype=np.float32)
            self.music.crops(np.array([row]), np.array([begin * HOP_SAMPLES]), stretch.shape[1], stretch)
            stretches.append(torch.from_numpy(stretch[0]))
            skip.append(first - begin)
        return TeacherContext(stretches, skip)

    def asked(self, first: int) -> dict[str, tuple[int, ...]]:
        """Return, by teacher, the codebooks to predict in the global batch that begins at a position.

        In validation that is all of them; those that ``acoustic_codebooks`` names top or bottom are the only ones, in
        validation too.
        """
        return {name: self._asked(first, kind.codebooks) for name, kind in self.teaching.codes.items()}

    def _asked(self, first: int, count: int) -> tuple[int, ...]:
        choice = self.params.acoustic_codebooks
        if choice == "random" and self.corrupt:
            return (int(self._generator(_CODEBOOK, first).integers(count)),)
        return {"top": (0,), "bottom": (count - 1,)}.get(choice, tuple(range(count)))

    def _masks(self, positions: Rows, own: range) -> NDArray[np.bool_]:
        """Return the masks of a worker's clips, trimmed within fixed groups, so that no worker's share matters."""
        group = self.params.mask_trim_clips
        masks = []
        for begin in range(own.start // group * group, own.stop, group):
            members = positions[begin : begin + group].tolist()
            generators = [self._generator(_MASK, position) for position in members]
            drawn = span_masks(generators, self.frames, self.params.mask_probability, self.params.mask_frames)
            masks.append(drawn[max(0, own.start - begin) : own.stop - begin])
        return np.concatenate(masks)

    def _snippets(self, mine: Rows, own: range, clips: int) -> list[list[Snippet]]:
        if not self.corrupt:
            return [[] for _ in own]
        fixed = self.params.mixture_probability, self.params.mixture_snippets, self._snippet_samples
        return [
            draw_snippets(self._generator(_MIXTURE, position), clip, clips, self.crop_samples, *fixed)
            for position, clip in zip(mine.tolist(), own, strict=True)
        ]


def crop_samples(seconds: float) -> int:
    """Return a crop's samples: the whole frames (320 samples) that fit into it."""
    return round(seconds * SAMPLE_RATE) // HOP_SAMPLES * HOP_SAMPLES


@dataclass(frozen=True)
class Update:
    """A worker's share of one update.

    Attributes:
        batches: micro-batches.
        masked_frames: of all micro-batches together.
        sounding: clips that are not all zeros.
    """

    batches: list[Batch]
    masked_frames: int
    sounding: int


class Loader:
    """Cuts one update after the other, some ahead.

    Its threads have a single torch thread each: a second team of threads would spin on the cores that the update is
    computed on (two interleaved pairs on two cores, the demo's student in this process, 8 clips: 9.8 against 6.8 and
    7.9 against 6.1 steps per second).

    Args:
        params: of the run.
        source: of the crops; asked by as many threads as updates are prepared ahead.
        place: of this worker.
        read_ahead: updates that are prepared while one is computed. One suffices for local shards; an object store
            answers late, so that more of them must wait for it at a time. The updates are the same.
    """

    def __init__(self, params: PretrainConfig, source: CropSource, place: Worker, read_ahead: int = 1) -> None:
        self._params, self._source, self._place, self._read_ahead = params, source, place, read_ahead
        self._workers = single_threads(workers=read_ahead)
        self._begun: deque[tuple[int, Future[Update]]] = deque()  # positions follow one another
        self.clips = params.batch_clips * place.world * params.accumulate

    def __enter__(self) -> Loader:
        self._pool = self._workers.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._drop()
        self._workers.__exit__(*raised)

    def take(self, position: int, left: int) -> Update:
        """Return the update that begins at ``position``, in crops since the start of training.

        Args:
            position: of the first crop of the global batch.
            left: how many updates will follow; no more of them are begun with.

        Raises:
            MertError: music or codes cannot be read.
        """
        if not self._begun or self._begun[0][0] != position:  # the first one, or training was set back
            self._drop()
            self._begin(position)
        future = self._begun.popleft()[1]
        last = self._begun[-1][0] if self._begun else position
        while len(self._begun) < min(self._read_ahead, left):
            last += self.clips
            self._begin(last)
        try:
            return future.result()
        except (OSError, ValueError, IndexError) as error:
            raise MertError(
                f"the music or the codes of crops {position} … {position + self.clips - 1} cannot be read "
                f"({type(error).__name__}: {error}). Check the disk, then run `dvc checkout` (or `dvc repro`)."
            ) from error

    def _begin(self, position: int) -> None:
        self._begun.append((position, self._pool.submit(self._prepare, position)))

    def _drop(self) -> None:
        """Forget what was begun; what is not running yet is not run."""
        while self._begun:
            self._begun.popleft()[1].cancel()

    def _prepare(self, position: int) -> Update:
        share = self._params.batch_clips
        clips = share * self._place.world
        own = range(share * self._place.rank, share * (self._place.rank + 1))
        firsts = (position + number * clips for number in range(self._params.accumulate))
        batches = [self._source.batch(first, clips, own) for first in firsts]
        sounding = sum(int(batch.clean.any(dim=1).sum()) for batch in batches)
        return Update(batches, sum(batch.masked_frames for batch in batches), sounding)
