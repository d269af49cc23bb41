from __future__ import annotations

import threading

import torch

from mert_core.parallel import single_threads


def test_as_many_workers_as_threads_each_of_one_thread() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        meeting = threading.Barrier(2, timeout=30)

        def threads(_: int) -> int:
            meeting.wait()  # fails unless two run at the same time
            return torch.get_num_threads()

        with single_threads() as pool:
            assert list(pool.map(threads, range(4))) == [1, 1, 1, 1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_gpu_has_one_worker() -> None:
    with single_threads("cuda") as pool:
        names = set(pool.map(lambda _: threading.current_thread().name, range(8)))
    assert len(names) == 1


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    before = torch.get_num_threads()
    inputs = [torch.randn(300, 300, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with single_threads() as pool:
                found.append(list(pool.map(lambda matrix: matrix @ matrix, inputs)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))
