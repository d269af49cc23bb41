"""Batches for pre-training. A crop, its mask and its noise are pure functions of (seed, epoch, index)."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from mert_core.audio.grid import HOP_SAMPLES, SAMPLE_RATE, student_frames
from mert_core.data.sampler import EpochCrops, Music
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


class CropSource:
    """Batches of one split.

    An epoch visits every track once per full crop length it holds, in an order of its own, each time at a random offset
    on the 320-sample grid, where codes and samples align exactly.

    Args:
        music: the corpus to cut from.
        target_set: what is read or prepared for each crop beside its sound.
        params: length of a crop, masks, mixture and codebooks to predict.
        split: train, valid or test.
        seed: seed of crops, masks and noise.
        corrupt: whether other clips are mixed into what the student hears.

    Raises:
        MertError: no track of the split is as long as a crop.
    """

    def __init__(
        self,
        music: Music,
        target_set: TargetSet,
        params: PretrainConfig,
        split: str,
        seed: int,
        *,
        corrupt: bool = True,
    ) -> None:
        self.music, self.target_set, self.params, self.corrupt = music, target_set, params, corrupt
        self.crop_samples = crop_samples(params.crop_seconds)
        self.frames = student_frames(self.crop_samples)
        self._seed = (seed, _SPLITS[split])
        rows = np.asarray(music.rows(split), dtype=np.int64)
        samples = np.asarray(music.samples, dtype=np.int64)
        streams = {"order": (*self._seed, _EPOCH), "offset": (*self._seed, _CROP)}
        self._crops = EpochCrops(rows, samples, self.crop_samples, **streams)
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

    def batch(self, first: int, clips: int, own: range) -> Batch:
        """Return a worker's share of the global batch of ``clips`` crops that begins at position ``first``.

        Args:
            first: position of the global batch's first crop, counted from the start of training.
            clips: crops of the global batch, over all workers.
            own: the worker's crops within it.
        """
        positions = np.arange(first, first + clips, dtype=np.int64)
        # The mixture takes sound from clips of the whole global batch: the worker's own and those it mixes in are read.
        snippets = self._snippets(positions[own.start : own.stop], own, clips)
        needed = sorted(set(own) | {snippet.source for row in snippets for snippet in row})
        rows, offsets = self.locate(positions[needed])
        sound = np.empty((len(needed), self.crop_samples), dtype=np.float32)
        self.music.crops(rows, offsets, self.crop_samples, sound)
        index = {clip: number for number, clip in enumerate(needed)}
        mine = [index[clip] for clip in own]

        # What the student hears: its clips, with stretches of others added at full gain.
        clean = sound[mine]
        noisy = clean.copy()
        for target, row in zip(noisy, snippets, strict=True):
            for s in row:
                source = sound[index[s.source]]
                target[s.start : s.start + s.samples] += source[s.source_start : s.source_start + s.samples]

        # What it is to predict: stored targets, and the sound that online teachers need around each crop.
        own_rows, first_frames = rows[mine], offsets[mine] // HOP_SAMPLES
        stored, contexts = {}, {}
        for spec in self.target_set.specs:
            name = spec.teacher
            if spec.targets == "stored":
                targets = self.target_set.stored[name].read(own_rows, first_frames, self.frames)
                stored[name] = torch.from_numpy(np.ascontiguousarray(targets))
            elif spec.targets == "online":
                contexts[name] = self._context(self.target_set.teacher(name), own_rows, first_frames)
        masks = self._masks(positions, own)
        return Batch(
            torch.from_numpy(noisy),
            torch.from_numpy(clean),
            torch.from_numpy(masks),
            int(masks.sum()),
            self.codebook_ids(first),
            stored,
            contexts,
        )

    def _context(self, teacher: Teacher, rows: Rows, first_frames: Rows) -> TeacherContext:
        """Return the spans of tracks that decide a teacher's targets of crops."""
        waveforms, skip_frames = [], []
        for row, first in zip(rows.tolist(), first_frames.tolist(), strict=True):
            begin, end = teacher.context_span(first, self.frames, int(self.music.samples[row]) // HOP_SAMPLES)
            waveform = np.empty((1, (end - begin) * HOP_SAMPLES), dtype=np.float32)
            self.music.crops(np.array([row]), np.array([begin * HOP_SAMPLES]), waveform.shape[1], waveform)
            waveforms.append(torch.from_numpy(waveform[0]))
            skip_frames.append(first - begin)
        return TeacherContext(waveforms, skip_frames)

    def codebook_ids(self, first: int) -> dict[str, tuple[int, ...]]:
        """Return, by teacher, the codebooks to predict in the global batch that begins at position ``first``.

        ``acoustic_codebooks: random`` draws one for each batch, but validation predicts all; ``top`` and ``bottom`` are
        the only ones in validation, too.
        """
        return {name: self._codebook_ids(first, kind.codebooks) for name, kind in self.target_set.codes.items()}

    def _codebook_ids(self, first: int, codebooks: int) -> tuple[int, ...]:
        choice = self.params.acoustic_codebooks
        if choice == "random" and self.corrupt:
            return (int(self._generator(_CODEBOOK, first).integers(codebooks)),)
        return {"top": (0,), "bottom": (codebooks - 1,)}.get(choice, tuple(range(codebooks)))

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


def micro_batches(clips: int, local_clips: int | None, rank: int, world: int) -> list[range]:
    """Return a worker's clips of an update, by micro-batch.

    The update's clips are cut into as few equal micro-batches as the workers can hold, and each of those into equal
    shares, so that what is computed together does not depend on the number of workers.

    Args:
        clips: clips of the update, over all workers.
        local_clips: most clips that a worker holds at a time; None: any number.
        rank: the worker's rank.
        world: number of workers.

    Raises:
        MertError: in some micro-batch there are fewer clips than workers.
    """
    count = 1 if local_clips is None else -(-clips // (local_clips * world))
    if clips // count < world:
        raise MertError(
            f"global_batch_size {clips} in micro-batches of local_batch_size {local_clips} leaves some of {world} "
            f"workers without a clip. Choose a global_batch_size that is a multiple of {world}, or fewer workers."
        )
    bounds = [clips * number // count for number in range(count + 1)]
    return [
        range(start + (end - start) * rank // world, start + (end - start) * (rank + 1) // world)
        for start, end in pairwise(bounds)
    ]


@dataclass(frozen=True)
class Update:
    """A worker's share of one update.

    Attributes:
        batches: its micro-batches, in order.
        masked_frames: masked frames of all micro-batches together.
        sounding_clips: number of clips that are not all zeros.
    """

    batches: list[Batch]
    masked_frames: int
    sounding_clips: int


class Loader:
    """Cuts one update after the other, some ahead.

    Its threads have a single torch thread each: a second team of threads would spin on the cores that the update is
    computed on (two interleaved pairs on two cores, the demo's student in this process, 8 clips: 9.8 against 6.8 and
    7.9 against 6.1 steps per second).

    Args:
        source: cuts the batches, in as many threads as updates are prepared ahead.
        worker: says which clips of a global batch are ours.
        clips: clips of one update, over all workers.
        local_clips: clips that a worker holds at a time; None: its whole share.
        read_ahead: updates that are prepared while one is computed. One suffices for local shards; an object store
            answers late, so that more of them must wait for it at a time. The updates are the same.

    Raises:
        MertError: some worker would be left without a clip.
    """

    def __init__(
        self, source: CropSource, worker: Worker, clips: int, local_clips: int | None = None, read_ahead: int = 1
    ) -> None:
        self._source, self._read_ahead, self.clips = source, read_ahead, clips
        self._own = micro_batches(clips, local_clips, worker.rank, worker.world)
        self._threads = single_threads(workers=read_ahead)
        self._begun: deque[tuple[int, Future[Update]]] = deque()  # positions follow one another

    def __enter__(self) -> Loader:
        self._pool = self._threads.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._drop()
        self._threads.__exit__(*raised)

    def take(self, position: int, left: int) -> Update:
        """Return the update that begins at ``position``, in crops since the start of training.

        Args:
            position: position of the update's first crop, over all workers.
            left: number of updates that will follow; no more of them are prepared ahead.

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
        batches = [self._source.batch(position, self.clips, own) for own in self._own]
        sounding_clips = sum(int(batch.clean.any(dim=1).sum()) for batch in batches)
        return Update(batches, sum(batch.masked_frames for batch in batches), sounding_clips)
