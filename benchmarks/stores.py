"""Object stores to measure against, each in a process of its own on 127.0.0.1."""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SPAWN = multiprocessing.get_context("spawn")


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
