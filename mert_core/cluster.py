"""Ray for the length of a block: the cluster that runs already, or one of this machine."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mert_core.errors import MertError
from mert_core.parallel import PASSIVE, thread_variables


@contextmanager
def ray_running(processors: int, threads: int, object_store_bytes: int, log_to_driver: bool = True) -> Iterator[None]:
    """Start Ray for the block, or use the cluster of ``RAY_ADDRESS``, and leave no process behind.

    A Ray that this process has started before is used as it is, and stays.

    Args:
        processors: CPUs of a Ray that is started here; what actors may claim together.
        threads: OpenMP threads of each process of Ray.
        object_store_bytes: of a Ray that is started here; takes what passes between processes.
        log_to_driver: whether what the processes print is printed here, too.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    if ray.is_initialized():
        yield
        return
    # Workers must find this very package, installed or not; Ray would start their OpenMP with one thread, and torch
    # asking for more later is slower (three interleaved pairs with the demo's student: by 6 to 8 %).
    package_root = str(Path(__file__).parents[1])
    paths = [package_root, *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = {
        "PYTHONPATH": os.pathsep.join(paths),
        **thread_variables(threads, processors),
        "TQDM_MININTERVAL": "10",  # a worker's bar is printed here line below line
    }
    if os.environ.get("RAY_ADDRESS"):
        variables |= PASSIVE  # what other machines have to do besides is not known here
        with _initialised(runtime_env={"env_vars": variables}, log_to_driver=log_to_driver):
            yield
        return
    # The processes of our own cluster inherit the variables.
    ours = {
        "num_cpus": processors,
        "object_store_memory": object_store_bytes,
        "include_dashboard": False,
        "_node_ip_address": "127.0.0.1",
        "log_to_driver": log_to_driver,
    }
    with _environment(variables), _initialised(**ours):
        yield


def cluster_gpus(wanted: str) -> int:
    """Return the GPUs of the running cluster that work may ask for: where there are any, each process asks for one.

    What this process sees does not matter: a head often has no GPU.

    Args:
        wanted: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        MertError: cuda is wanted, and no machine of the cluster has a GPU.
    """
    import ray

    count = 0 if wanted == "cpu" else int(ray.cluster_resources().get("GPU", 0))
    if wanted == "cuda" and not count:
        raise MertError(
            "the device is to be cuda, but no machine of the Ray cluster has a GPU (`ray status` lists what it has). "
            "Set pretrain.device (or the run's) to auto or cpu, or add a machine with one."
        )
    return count


@contextmanager
def _initialised(**options: Any) -> Iterator[None]:
    import ray

    ray.init(logging_level=logging.ERROR, **options)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set variables of this process for the block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
