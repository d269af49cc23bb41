"""One task asked of one encoder: read the clips, train and choose, note the reading, score the test set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mert_core.corpus.datasets.clips import ClipSet
from mert_core.errors import MertError
from mert_core.probe.asking import Asked
from mert_core.probe.encoders import Encoder, fingerprint, identity
from mert_core.probe.judges import JUDGES
from mert_core.probe.judges.case import Case
from mert_core.probe.ledger import Choice, Ledger, hash_of_tracks
from mert_core.probe.protocol import protocol_hash, settings_of
from mert_core.probe.results import Result

if TYPE_CHECKING:
    from mert_core.config import Config
    from mert_core.paths import Layout


@dataclass(frozen=True)
class _Notice:
    """Tells the ledger what was chosen, before the test set is read."""

    asked: Asked
    model: str
    test_set: str
    protocol: str
    ledger: Ledger

    def __call__(self, input: int | str, rate: float) -> None:
        if not self.asked.task.is_demo:
            choice = Choice(input, rate, self.protocol)
            self.ledger.read(self.asked.task.name, self.model, self.test_set, choice)


def examine(asked: Asked, encoder: Encoder, config: Config, layout: Layout) -> Result:
    """Ask one task of one encoder. A task whose data set is not here is skipped, and says so.

    Raises:
        MertError: the data set is not as it should be, a split has no usable clip, the model has diverged, or the test
            set was read before under another choice.
    """
    task = asked.task
    protocol = protocol_hash(config, task)
    if asked.absent:
        return Result(task.name, skipped=asked.absent, protocol=protocol, encoder=identity(encoder))
    clips = asked.clips()
    _check(asked, clips)
    tests = hash_of_tracks([(clip.clip_id, clip.sound.identity) for clip in clips.of("test")])
    notice = _Notice(asked, fingerprint(encoder), tests, protocol, Ledger(layout.state))
    case = Case(
        task=task, clips=clips, encoder=encoder, settings=settings_of(config, task), seed=config.seed,
        caches=layout.caches, before_test=notice,
    )  # fmt: skip
    verdict, left_out, robustness = JUDGES[task.kind](case)
    return Result(
        task=task.name, verdict=verdict, protocol=protocol, left_out=clips.left_out | left_out, test_set=tests,
        robustness=robustness, encoder=identity(encoder),
    )  # fmt: skip


def _check(asked: Asked, clips: ClipSet) -> None:
    empty = [split for split in ("train", "valid", "test") if not clips.of(split)]
    if empty:
        raise MertError(
            f"{asked.task.name}: {asked.folder} has no usable clip of the split {', '.join(empty)}"
            + (f" (left out: {clips.left_out})" if clips.left_out else "")
            + ". `mert doctor --datasets` says what is missing."
        )
