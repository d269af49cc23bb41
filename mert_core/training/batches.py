"""Batches for pre-training. A crop, its mask and its noise are pure functions of (seed, epoch, index)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mert_core.audio.grid import HOP_SAMPLES, SAMPLE_RATE, student_frames
from mert_core.data.sampler import EpochCrops, Music, Rows
from mert_core.errors import MertError
from mert_core.parallel import in_order, single_threads
from mert_core.training.corruption import Snippet, draw_snippets, span_masks
from mert_core.training.targets import Batch, TargetSet, TeacherContext, codes_of
from mert_core.training.worker import Worker

if TYPE_CHECKING:
    from mert_core.config import PretrainConfig


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
        rows, samples = np.asarray(music.rows(split), np.int64), np.asarray(music.samples, np.int64)
        streams = {"order": (*self._seed, _EPOCH), "offset": (*self._seed, _CROP)}
        self._crops = EpochCrops(rows, samples, self.crop_samples, **streams)
        if not len(self._crops):
            raise MertError(
                f"no track of the {split} split is as long as a crop ({params.crop_seconds:g} s): it has {len(rows)} "
                f"track(s), the longest of {samples[rows].max(initial=0) / SAMPLE_RATE:.2f} s. Shorten "
                "pretrain.crop_seconds or add music."
            )

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
        # The mixture takes sound from clips of the whole global batch: the worker's own and those it mixes in are read.
        snippets = [self._snippets(first + clip, clip, clips) if self.corrupt else [] for clip in own]
        needed = sorted(set(own) | {snippet.source for row in snippets for snippet in row})
        rows, offsets = self.locate(first + np.array(needed, np.int64))
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
                contexts[name] = self._context(name, own_rows, first_frames)

        # Where: the masks are trimmed within fixed groups, so that no worker's share matters.
        group = self.params.mask_trim_clips
        masks = []
        for begin in range(own.start // group * group, own.stop, group):
            generators = [self._generator(_MASK, first + clip) for clip in range(begin, min(begin + group, clips))]
            drawn = span_masks(generators, self.frames, self.params.mask_probability, self.params.mask_frames)
            masks.append(drawn[max(0, own.start - begin) : own.stop - begin])
        mask = torch.from_numpy(np.concatenate(masks))
        ids = self.codebook_ids(first)
        return Batch(torch.from_numpy(noisy), torch.from_numpy(clean), mask, int(mask.sum()), ids, stored, contexts)

    def _snippets(self, position: int, clip: int, clips: int) -> list[Snippet]:
        """Draw what is mixed into a clip of a global batch."""
        params = self.params
        low, high = (min(round(seconds * SAMPLE_RATE), self.crop_samples) for seconds in params.mixture_seconds)
        most = params.mixture_snippets
        generator = self._generator(_MIXTURE, position)
        return draw_snippets(generator, clip, clips, self.crop_samples, params.mixture_probability, most, (low, high))

    def _context(self, name: str, rows: Rows, first_frames: Rows) -> TeacherContext:
        """Read the spans of tracks that decide an online teacher's targets of crops."""
        context = TeacherContext([], [])
        for row, first in zip(rows.tolist(), first_frames.tolist(), strict=True):
            track_frames = int(self.music.samples[row]) // HOP_SAMPLES
            begin, end = self.target_set.teacher(name).context_span(first, self.frames, track_frames)
            waveform = np.empty((1, (end - begin) * HOP_SAMPLES), dtype=np.float32)
            self.music.crops(np.array([row]), np.array([begin * HOP_SAMPLES]), waveform.shape[1], waveform)
            context.waveforms.append(torch.from_numpy(waveform[0]))
            context.skip_frames.append(first - begin)
        return context

    def codebook_ids(self, first: int) -> dict[str, tuple[int, ...]]:
        """Return, by teacher, the codebooks to predict in the global batch that begins at position ``first``.

        ``acoustic_codebooks: random`` draws one for each batch, but validation predicts all; ``top`` and ``bottom`` are
        the only ones in validation, too.
        """
        choice, ids = self.params.acoustic_codebooks, {}
        for name, kind in codes_of(self.target_set.specs).items():
            ids[name] = {"top": (0,), "bottom": (kind.codebooks - 1,)}.get(choice, tuple(range(kind.codebooks)))
            if choice == "random" and self.corrupt:
                ids[name] = (int(self._generator(_CODEBOOK, first).integers(kind.codebooks)),)
        return ids


def crop_samples(seconds: float) -> int:
    """Return a crop's samples: the whole frames (320 samples) that fit into it."""
    return round(seconds * SAMPLE_RATE) // HOP_SAMPLES * HOP_SAMPLES


def micro_batches(clips: int, local_clips: int | None, rank: int, world: int) -> list[range]:
    """Return a worker's clips of an update, by micro-batch.

    The update's clips are cut into as few equal micro-batches as the workers can hold (``local_clips`` each; None: any
    number), and each of those into equal shares, so that what is computed together does not depend on the number of
    workers.

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
        self._source, self._clips, self._read_ahead = source, clips, read_ahead
        self._own = micro_batches(clips, local_clips, worker.rank, worker.world)
        self._threads = single_threads(workers=read_ahead)

    def __enter__(self) -> Loader:
        self._pool = self._threads.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._pool.shutdown(cancel_futures=True)  # what is not running yet is not run
        self._threads.__exit__(*raised)

    def updates(self, position: int, count: int) -> Iterator[list[Batch]]:
        """Yield a worker's micro-batches of ``count`` updates, which begin at crop ``position`` of the training.

        Raises:
            MertError: music or codes cannot be read.
        """

        def prepare(first: int) -> list[Batch]:
            return [self._source.batch(first, self._clips, own) for own in self._own]

        positions = range(position, position + count * self._clips, self._clips)
        prepared = in_order(self._pool, prepare, positions, self._read_ahead)
        for first in positions:
            try:
                batches = next(prepared)
            except (OSError, ValueError, IndexError) as error:
                raise MertError(
                    f"the music or the codes of crops {first} … {first + self._clips - 1} cannot be read "
                    f"({type(error).__name__}: {error}). Check the disk, then run `dvc checkout` (or `dvc repro`)."
                ) from error
            yield batches
