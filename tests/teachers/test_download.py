"""EnCodec's weights over HTTP, from a server on this machine."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mert_core.errors import MertError
from mert_core.teachers.codec.encodec import download, published_address

CONTENT = bytes(range(256)) * 9000
NAME = f"weights-{hashlib.sha256(CONTENT).hexdigest()[:8]}.th"


class Quiet(SimpleHTTPRequestHandler):
    seen: list[str]

    def do_GET(self) -> None:
        self.seen.append(self.path)
        if self.path.endswith("cut-" + NAME):
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT[:100_000])
            return
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / NAME).write_bytes(CONTENT)
    (tmp_path / "served" / "weights-00000000.th").write_bytes(CONTENT)
    Quiet.seen = []
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "served"))) as http:
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()
        thread.join()


def test_a_file_that_is_what_its_name_says_is_kept_and_not_fetched_again(server: str, tmp_path: Path) -> None:
    path = download(tmp_path / "here", f"{server}/{NAME}")
    assert path == tmp_path / "here" / NAME
    assert path.read_bytes() == CONTENT
    assert download(tmp_path / "here", f"{server}/{NAME}") == path
    assert Quiet.seen == [f"/{NAME}"]
    path.write_bytes(CONTENT[:5])
    assert download(tmp_path / "here", f"{server}/{NAME}").read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "here").iterdir()] == [NAME]


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("weights-00000000.th", r"has the SHA-256 .* but its name says 00000000"),
        (f"cut-{NAME}", r"cut off|cannot fetch"),
        ("weights-12345678.th", r"cannot fetch .*weights-12345678\.th: File not found.*teachers\.encodec\.checkpoint"),
        ("weights.th", "does not say what it should hash to"),
    ],
)
def test_anything_else_leaves_nothing_behind(server: str, tmp_path: Path, file: str, message: str) -> None:
    (tmp_path / "here").mkdir()
    with pytest.raises(MertError, match=message):
        download(tmp_path / "here", f"{server}/{file}")
    assert not list((tmp_path / "here").iterdir())


def test_nobody_there_is_an_error(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but does not listen
        with pytest.raises(MertError, match=r"cannot fetch .* refused"):
            download(tmp_path, f"http://127.0.0.1:{taken.getsockname()[1]}/{NAME}")


def test_the_published_address_is_the_packages() -> None:
    address = published_address()
    assert address.startswith("https://") and address.endswith("/encodec_24khz-d7cc33bc.th")
