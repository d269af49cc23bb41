"""`python -m benchmarks.object_store`: how long training waits for an object store, by updates that are read ahead.

moto's server in a process of its own, behind a proxy that holds every request back, and real updates of a student. What
is read is what `mert pretrain` reads for a micro-batch: a range of a PCM shard and one of a shard of codes per clip.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.gpu import Options, Trainer
from benchmarks.student import CODEBOOKS
from mert_core.audio.grid import FRAME_RATE, HOP_SAMPLES, SAMPLE_RATE
from mert_core.files import write_text
from mert_core.training.batches import Loader
from mert_core.training.cost import CostMeter, Totals
from mert_core.training.worker import Worker

if TYPE_CHECKING:
    from mert_core.data.remote import RemoteFolder, RemoteShards
    from mert_core.data.shards import ShardReader

_SHARDS, _SHARD_SECONDS = 8, 20.0  # small: moto reads a whole object for each range
_WARM_UP = 3
_CODE = np.dtype("<u2")
_SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Sound:
    """What the loader looks at in a micro-batch: samples (batch, samples) and the number of masked frames."""

    clean: torch.Tensor
    masked_frames: int = 1


class Source:
    """Cuts random stretches and their codes, as a function of the position; stands for `CropSource`.

    Args:
        music: reads PCM shards.
        codes: the folder of codes on the object store; None reads them from ``folder``.
        folder: of the local shards.
        seconds: of a clip.
    """

    def __init__(
        self, music: ShardReader | RemoteShards, codes: RemoteFolder | None, folder: Path, seconds: float
    ) -> None:
        self._music, self._codes, self._folder = music, codes, folder
        self._frames = round(seconds * FRAME_RATE)

    def batch(self, first: int, clips: int, own: range) -> Sound:
        """Return the clips ``own`` of the global batch at position ``first``."""
        generator = np.random.default_rng(first)
        shards = generator.integers(0, _SHARDS, clips)
        begins = generator.integers(0, round(_SHARD_SECONDS * FRAME_RATE) - self._frames, clips)
        sound = np.empty((clips, self._frames * HOP_SAMPLES), dtype=np.float32)
        self._music.gather(shards, begins * HOP_SAMPLES, sound.shape[1], sound)
        width = CODEBOOKS * _CODE.itemsize
        names, starts = [f"{shard:05d}.codes" for shard in shards.tolist()], (begins * width).tolist()
        if self._codes is None:
            for name, start in zip(names, starts, strict=True):
                np.fromfile(self._folder / name, _CODE, self._frames * CODEBOOKS, offset=start)
        else:
            self._codes.read(names, starts, self._frames * width)
        return Sound(torch.from_numpy(sound))


def write_shards(folder: Path) -> None:
    """Write shards of random samples and codes."""
    generator = np.random.default_rng(0)
    for shard in range(_SHARDS):
        samples = generator.integers(-(2**15), 2**15, round(_SHARD_SECONDS * SAMPLE_RATE), dtype=np.int16)
        (folder / f"{shard:05d}.pcm").write_bytes(samples.tobytes())
        codes = generator.integers(0, 1024, (round(_SHARD_SECONDS * FRAME_RATE), CODEBOOKS)).astype(_CODE)
        (folder / f"{shard:05d}.codes").write_bytes(codes.tobytes())


# Object stores to measure against, each in a process of its own on 127.0.0.1


def free_port() -> int:
    """Return a port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _hold_back(listen: int, port: int, seconds: float) -> None:
    """Pass connections on, each piece of what is asked for after a pause; answers pass at once."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pause: float) -> None:
        try:
            while piece := await reader.read(1 << 16):
                if pause:
                    await asyncio.sleep(pause)
                writer.write(piece)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, there[1], seconds), pump(there[0], writer, 0.0))

    async def run() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", listen, backlog=256)
        await server.serve_forever()

    asyncio.run(run())


@contextmanager
def late_store(seconds: float) -> Iterator[tuple[str, str]]:
    """Run an object store; yield its address and one under which every answer takes so much longer."""
    port, late = free_port(), free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with _process(_hold_back, late, port, seconds):
            for listening in (port, late):
                _await(listening)
            yield f"http://127.0.0.1:{port}", f"http://127.0.0.1:{late}"
    finally:
        server.terminate()
        server.wait()


def _same_bytes(listen: int, size: int) -> None:
    """Answer every request at once with ``size`` zeros: no store, only what a client can be measured against."""
    answer = f'HTTP/1.1 206 Partial Content\r\nContent-Length: {size}\r\nETag: "0"\r\n\r\n'.encode() + bytes(size)

    class Answers(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self._transport, self._asked = transport, b""

        def data_received(self, data: bytes) -> None:
            *whole, self._asked = (self._asked + data).split(b"\r\n\r\n")
            for _ in whole:
                self._transport.write(answer)  # type: ignore[attr-defined]

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(Answers, "127.0.0.1", listen)
        await server.serve_forever()

    asyncio.run(run())


@contextmanager
def prompt_store(size: int) -> Iterator[str]:
    """Run what answers every range with ``size`` bytes; yield its address."""
    port = free_port()
    with _process(_same_bytes, port, size):
        _await(port)
        yield f"http://127.0.0.1:{port}"


@contextmanager
def _process(work: Callable[..., None], *arguments: object) -> Iterator[None]:
    process = _SPAWN.Process(target=work, args=arguments, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.terminate()
        process.join()


def _await(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def at(address: str) -> None:
    """Make what is opened from here on ask this address."""
    from s3fs import S3FileSystem

    given = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ.update({"AWS_ENDPOINT_URL": address, **given})
    S3FileSystem.clear_instance_cache()


def measure(trainer: Trainer, source: Source, clips: int, read_ahead: int, steps: int) -> dict[str, Any]:
    """Train for some updates and return the cost meter's figures."""
    seconds = source.batch(0, 1, range(1)).clean.shape[1] / SAMPLE_RATE
    worker = Worker()
    with Loader(source, worker, clips, read_ahead=read_ahead) as loader:  # type: ignore[arg-type]
        updates = loader.updates(0, _WARM_UP + steps)
        for step in range(_WARM_UP + steps):
            if step == _WARM_UP:
                meter = CostMeter(Totals(), worker, seconds, lambda masked_frames: 0.0)
            with meter.waiting() if step >= _WARM_UP else nullcontext():
                next(updates)
            trainer.update()
            if step >= _WARM_UP:
                meter.count(clips, 1)
    return meter.card()


def client_rates() -> list[tuple[str, int, float]]:
    """Return how many ranges a process takes in per second of processor time: what, bytes, median over rounds of 64."""
    from mert_core.data.remote import RemoteFolder

    frames = {"codes of 5 s": round(5 * FRAME_RATE) * CODEBOOKS * _CODE.itemsize, "samples of 5 s": 5 * SAMPLE_RATE * 2}
    rates = []
    for what, size in frames.items():
        with prompt_store(size) as address:
            at(address)
            folder = RemoteFolder("s3://music/any")
            spent = []
            for _ in range(11):
                start = time.process_time()
                folder.read(["x"] * 64, [0] * 64, size)
                spent.append(time.process_time() - start)
            rates.append((what, size, 64 / statistics.median(spent[1:])))
    return rates


def page(rows: list[tuple[str, int, dict[str, Any]]], told: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    lines = [
        "### Training from an object store",
        "",
        f"`python -m benchmarks.object_store`: updates of `{told['preset']}`, {told['clips']} clip(s) of "
        f"{told['seconds']:g} s, one thread, {told['steps']} updates per row after {_WARM_UP} that do not count. "
        "moto's server and a proxy that holds each request back for the milliseconds that are named ran on the same "
        f"{told['cores']} cores as the training. Per update {2 * told['clips']} ranges are asked for, in two rounds "
        "(samples, then codes).",
        "",
        "| shards | `storage.read_ahead` | share of time waiting for data | waiting per update | rest of the update |",
        "|---|---|---|---|---|",
    ]
    for where, ahead, card in rows:
        whole = 1000 / card["steps_per_second"]
        waited = whole * card["data_wait_share"]
        lines.append(
            f"| {where} | {ahead} | {100 * card['data_wait_share']:.1f} % | {waited:.0f} ms | {whole - waited:.0f} ms |"
        )
    lines += [
        "",
        "What a process takes in per second of processor time, its Python being the limit, from a server that answers "
        "every range with the same bytes: "
        + "; ".join(f"{rate:,.0f} ranges of {size:,} bytes ({what})" for what, size, rate in told["rates"])
        + ". A crop is one range of each.",
    ]
    return "\n".join([*lines, ""])


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.object_store", description=__doc__)
    parser.add_argument("--preset", default="mert-tiny")
    parser.add_argument("--clips", type=int, default=1, help="per update (1)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a clip (1)")
    parser.add_argument("--steps", type=int, default=40, help="updates per row (40)")
    parser.add_argument("--latency-ms", type=float, nargs="+", default=[50.0, 200.0], help="added to each request")
    parser.add_argument("--ahead", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--to", type=Path, required=True, metavar="FILE", help="where to write the table")
    told = parser.parse_args()

    from mert_core.data.remote import RemoteFolder, RemoteShards, filesystem
    from mert_core.data.shards import ShardReader

    torch.set_num_threads(1)
    options = Options(torch.device("cpu"), False, False, told.steps, precision="fp32")
    trainer = Trainer(told.preset, told.clips, told.seconds, options)
    rows = []
    url = "s3://music/shards"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_shards(folder)
        local = Source(ShardReader(folder), None, folder, told.seconds)
        far = Source(RemoteShards(url), RemoteFolder(url), folder, told.seconds)

        def rows_of(where: str, source: Source, aheads: list[int]) -> None:
            for ahead in aheads:
                card = measure(trainer, source, told.clips, ahead, told.steps)
                rows.append((where, ahead, card))
                print(f"{where}, {ahead} ahead: {card['data_wait_share']:.3f} waiting", file=sys.stderr)

        rows_of("local", local, [1])
        for latency_ms in told.latency_ms:
            with late_store(latency_ms / 1000) as (prompt, late):
                at(prompt)
                store, _ = filesystem(url)
                store.mkdir("music")
                store.put(f"{folder}/*", f"{url}/")
                at(late)
                assert torch.equal(far.batch(7, 4, range(4)).clean, local.batch(7, 4, range(4)).clean)
                rows_of(f"object store, {latency_ms:g} ms", far, told.ahead)
    facts = {**vars(told), "cores": len(os.sched_getaffinity(0)), "rates": client_rates()}
    write_text(told.to, page(rows, facts))


if __name__ == "__main__":
    main()
