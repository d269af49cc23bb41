"""Two processes with four clips each learn what one process learns from eight."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.pretrain.test_data import source

ROOT = Path(__file__).parents[2]
PROGRAM = textwrap.dedent(
    """
    import sys
    from datetime import timedelta
    from pathlib import Path
    from torch import distributed
    from mert_core.pretrain.job import Job, work
    from mert_core.pretrain.observe import SilentObserver
    from mert_core.pretrain.place import Place
    from tests.pretrain.music import Tones, params
    rank, world, port, out = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
    if world > 1:
        distributed.init_process_group(
            "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world, timeout=timedelta(seconds=120)
        )
    changes = dict(max_steps=20, log_every=1, validate_every=20, batch_clips=8 // world)
    out.mkdir(exist_ok=True)
    work(Job(params(**changes), Tones(), 7, 1, out, None), Place(rank, world), SilentObserver())
    """
)


def losses(out: Path, world: int) -> np.ndarray:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    commands = [[sys.executable, "-c", PROGRAM, str(rank), str(world), str(port), str(out)] for rank in range(world)]
    workers = [subprocess.Popen(command, cwd=ROOT, env=environment) for command in commands]
    assert [worker.wait(240) for worker in workers] == [0] * world
    curve = pq.read_table(out / "curve.parquet").to_pandas()
    return curve[(curve.split == "train") & (curve.term == "loss")].value.to_numpy()


def test_two_workers_with_half_the_batch_follow_one(tmp_path: Path) -> None:
    one, two = losses(tmp_path / "one", 1), losses(tmp_path / "two", 2)
    assert len(one) == len(two) == 20
    assert one[-1] < 0.9 * one[0]
    assert two == pytest.approx(one, rel=1e-4)


@pytest.mark.parametrize("shares", [2, 4, 8])
def test_masks_do_not_depend_on_how_a_batch_is_shared_out(shares: int) -> None:
    crops = source(mask_trim_clips=4)
    whole = crops.batch(16, 8, range(8))
    size = 8 // shares
    parts = [crops.batch(16, 8, range(n * size, (n + 1) * size)) for n in range(shares)]
    assert np.array_equal(whole.mask.numpy(), np.concatenate([part.mask.numpy() for part in parts]))
    assert len(set(whole.mask[:4].sum(1).tolist())) == 1
