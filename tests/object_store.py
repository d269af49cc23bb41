"""A real S3 API on 127.0.0.1: moto's server, for as long as a test needs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

BUCKET = "music"


class Store:
    """The server. What it holds lives as long as this process, also while it does not answer."""

    def __init__(self) -> None:
        self._server = self._start(0)
        self.port = self._server.get_host_and_port()[1]

    @staticmethod
    def _start(port: int) -> ThreadedMotoServer:
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
        server.start()
        return server

    def stop(self) -> None:
        """No longer answer."""
        self._server.stop()

    def answer_again(self) -> None:
        """Answer at the same address as before."""
        self._server = self._start(self.port)


@contextmanager
def running_store() -> Iterator[Store]:
    """Run the server; the environment points at it, and it has the bucket `BUCKET`."""
    store = Store()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{store.port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        S3FileSystem.clear_instance_cache()  # clients keep the address that they were made with
        try:
            S3FileSystem().mkdir(BUCKET)
            yield store
        finally:
            S3FileSystem.clear_instance_cache()
            store.stop()
