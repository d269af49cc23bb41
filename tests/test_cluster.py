"""Ray's processes wait as ours do, here and on another's cluster; and the cluster says which device there is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mert_core.cluster import cluster_gpus, ray_running
from mert_core.errors import MertError
from mert_core.parallel import PASSIVE
from mert_core.training.ray_train import use_gpus

pytestmark = pytest.mark.integration

IN_A_WORKER = """
import json, sys
from mert_core.cluster import ray_running
with ray_running(1, 3, 100 * 2**20):
    import ray
    @ray.remote
    def see():
        import os, sys
        return dict(os.environ) | {"torch": str("torch" in sys.modules)}
    print(json.dumps(ray.get(see.remote())))
"""


def seen_by_a_worker(repository: Path, **variables: str) -> dict[str, str]:
    """Return the environment of a worker of a fresh process's Ray, and whether torch is loaded there."""
    ours = {name: value for name, value in os.environ.items() if name not in PASSIVE} | variables
    command = [sys.executable, "-c", IN_A_WORKER]
    done = subprocess.run(command, cwd=repository, env=ours, capture_output=True, text=True, check=True, timeout=120)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def others() -> Iterator[str]:
    """The address of a cluster whose processes spin, with a GPU that no process of it has."""
    import ray

    before = {name: os.environ.pop(name, None) for name in PASSIVE}
    os.environ["GOMP_SPINCOUNT"] = "300000"
    try:
        running = ray.init(num_cpus=2, num_gpus=1, include_dashboard=False, object_store_memory=100 * 2**20)
    finally:
        os.environ.pop("GOMP_SPINCOUNT")
        os.environ.update({name: value for name, value in before.items() if value is not None})
    yield running.address_info["gcs_address"]
    ray.shutdown()


def test_workers_of_our_own_cluster_wait_passively(repository: Path) -> None:
    found = seen_by_a_worker(repository)
    assert found.items() >= (PASSIVE | {"OMP_NUM_THREADS": "3", "torch": "False"}).items()


def test_workers_on_a_cluster_of_others_do_so_too(others: str, repository: Path) -> None:
    found = seen_by_a_worker(repository, RAY_ADDRESS=others)
    assert found.items() >= (PASSIVE | {"OMP_NUM_THREADS": "3", "torch": "False"}).items()


def test_the_cluster_says_which_device_there_is_and_not_the_process_that_asks(
    others: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    with ray_running(1, 1, 100 * 2**20):
        assert [cluster_gpus(wanted) for wanted in ("auto", "cpu", "cuda")] == [1, 0, 1]
        assert use_gpus("auto", 1) and not use_gpus("cpu", 1)
        with pytest.raises(MertError, match=r"2 workers, each with a GPU, but the Ray cluster has 1\."):
            use_gpus("auto", 2)
        monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
        assert not use_gpus("auto", 2)
        with pytest.raises(MertError, match=r"no machine of the Ray cluster has a GPU .* Set pretrain\.device"):
            use_gpus("cuda", 1)
