from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from mert_core.services.gate import OPEN_PATH, Gate

HERE = "http://127.0.0.1:5000"


async def page(request: object) -> PlainTextResponse:
    return PlainTextResponse("inside")


async def events(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text("inside")
    await socket.close()


def browser(experiment: str | None) -> TestClient:
    routes = [Route(path, page, methods=["GET", "POST"]) for path in ("/", "/health", "/api/delete")]
    app = Starlette(routes=[*routes, WebSocketRoute("/events", events)])
    return TestClient(Gate(app, "the-secret", "the-cookie", experiment), base_url=HERE)


@pytest.mark.parametrize("experiment", ["music", None])
@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example:5000"},
        {"host": "127.0.0.1.evil.example"},
        {"host": ""},
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:9999"},  # another user's server on this machine
        {"origin": "null"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"},
    ],
)
def test_other_pages_and_foreign_names_are_refused_whatever_they_carry(
    experiment: str | None, headers: dict[str, str]
) -> None:
    client = browser(experiment)
    carried = headers | {"authorization": "Bearer the-cookie"}
    for method, path in (("GET", "/"), ("POST", "/api/delete"), ("OPTIONS", "/api/delete"), ("POST", OPEN_PATH)):
        answer = client.request(method, path, headers=carried)
        assert answer.status_code == 403
        assert "inside" not in answer.text and not answer.cookies
        assert "access-control-allow-origin" not in answer.headers
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("ws://127.0.0.1:5000/events", headers=carried):
        pass


def test_mlflow_without_the_secret_is_closed_but_for_its_health() -> None:
    client = browser("music")
    assert client.get("/health").text == "inside"
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic the-cookie"}, {"cookie": "mert=x"}):
        assert client.get("/", headers=headers).status_code == 401
        assert client.post("/api/delete", headers=headers).status_code == 401
    assert client.post("/api/delete", headers={"authorization": "Bearer the-cookie"}).text == "inside"


def test_the_printed_address_lets_a_browser_in_and_its_links_stay_good() -> None:
    client = browser("music")
    opening = client.get(OPEN_PATH)  # the secret after `#` stays in the browser; the page posts it
    assert "POST" in opening.text and "the-" not in opening.text
    assert client.post(OPEN_PATH, headers={"authorization": "Bearer wrong"}).status_code == 403
    answer = client.post(OPEN_PATH, headers={"authorization": "Bearer the-secret", "origin": HERE})
    assert answer.json() == "music"
    assert {"httponly", "samesite=strict"} <= {part.strip().lower() for part in answer.headers["set-cookie"].split(";")}
    inside = client.get("/")
    assert inside.text == "inside"
    assert inside.headers["content-security-policy"] == "frame-ancestors 'self'"
    followed = {"sec-fetch-site": "same-site", "sec-fetch-mode": "navigate"}  # a link from Prefect to an MLflow run
    assert client.get("/", headers=followed).text == "inside"
    assert client.post("/api/delete", headers=followed).status_code == 403


def test_prefect_asks_for_its_password_itself() -> None:
    client = browser(None)
    assert client.get("/").text == "inside"
    answer = client.post(OPEN_PATH, headers={"authorization": "Bearer the-secret"})
    assert answer.json() is None  # the page keeps the secret as password
    with client.websocket_connect("ws://127.0.0.1:5000/events", headers={"origin": HERE}) as socket:
        assert socket.receive_text() == "inside"
