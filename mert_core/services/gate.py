"""The local MLflow and Prefect servers behind a gate that only their owner's browser and shell pass.

A port of 127.0.0.1 is open to every user of the machine and, through the browser, to every web page that its owner
visits. Prefect's server runs the commands that are posted to it, MLflow's reads and deletes files, so `Gate` asks:

1. Is ``Host`` this machine? Otherwise a foreign name was pointed here (DNS rebinding).
2. Did the server's own page send this request? A browser names another page in ``Origin`` or ``Sec-Fetch-Site``.
3. Does the request carry the secret? Prefect asks for it itself, at its API and in its websockets; for MLflow, which
   cannot, the gate does.

The address that ``mert up`` prints ends in ``/open#SECRET``. A browser keeps what follows ``#`` to itself: no log sees
it. The page at ``/open`` shows it to the gate, keeps what the pages need, and goes on to Prefect's front page, or to
the experiment's runs in MLflow.

Both servers are started as ``uvicorn --factory mert_core.services.gate:prefect`` (or ``mlflow``), settings and secrets
in the environment, which other users cannot read.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN_PATH = "/open"
OPEN_SECRET = "MERT_OPEN_SECRET"  # environment variable: what the printed address ends in
MLFLOW_SECRET = "MERT_MLFLOW_SECRET"  # environment variable: what MLflow's requests carry, as cookie or bearer token
MLFLOW_STORE = "MERT_MLFLOW_STORE"  # environment variable: database URI
MLFLOW_ARTIFACTS = "MERT_MLFLOW_ARTIFACTS"  # environment variable: URI of the folder for new experiments' files
MLFLOW_EXPERIMENT = "MERT_MLFLOW_EXPERIMENT"  # environment variable: name of the experiment
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_HEALTH = "/health"

_OPEN_PAGE = """<!doctype html><meta charset="utf-8"><title>mert</title><p id="said">Opening …</p><script>
const secret = location.hash.slice(1);
history.replaceState(null, "", location.pathname);
fetch(location.pathname, {method: "POST", headers: {Authorization: "Bearer " + secret}}).then(async answer => {
  if (!answer.ok) {
    document.getElementById("said").textContent = "This is no address of the present `mert up`.";
    return;
  }
  const experiment = await answer.json();
  if (experiment === null) {
    localStorage.setItem("prefect-password", btoa(secret));
    return location.replace("/");
  }
  localStorage.setItem("mlflow.workflowType_v1", '"machine_learning"');  // else its pages speak of agents and prompts
  localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true");
  const named = "/ajax-api/2.0/mlflow/experiments/get-by-name?experiment_name=" + encodeURIComponent(experiment);
  const known = await fetch(named);  // not there before the first stage has run
  location.replace(known.ok ? `/#/experiments/${(await known.json()).experiment.experiment_id}/runs` : "/");
});
</script>"""


class Gate:
    """ASGI middleware that lets a server's owner in and nobody else.

    Args:
        app: the server.
        secret: what the printed address ends in.
        cookie_secret: what the browser shall carry to MLflow; cookies of 127.0.0.1 go to all its ports, so that either
            page opens the other's links.
        experiment: MLflow's experiment that the page goes on to; all but the health check then needs ``cookie_secret``.
            None for Prefect.
    """

    def __init__(self, app: ASGIApp, secret: str, cookie_secret: str, experiment: str | None) -> None:
        self.app, self.secret, self.cookie_secret, self.experiment = app, secret, cookie_secret, experiment
        self.cookie = "mert-" + hashlib.sha256(cookie_secret.encode()).hexdigest()[:8]  # two checkouts, two cookies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if reason := _foreign(headers, scope.get("method")):
            await _refuse(reason, 403, scope, receive, send)
        elif scope["type"] == "http" and scope["path"] == OPEN_PATH:
            await self._open(scope["method"], headers)(scope, receive, send)
        elif self.experiment is not None and scope["path"] != _HEALTH and not self._carries_secret(headers):
            await _refuse("Open the address that `mert up` printed.", 401, scope, receive, send)
        else:
            await self.app(scope, receive, _unframed(send))

    def _open(self, method: str, headers: Headers) -> Response:
        if method != "POST":
            policy = "default-src 'none'; script-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'"
            closed = {"Content-Security-Policy": policy, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
            return HTMLResponse(_OPEN_PAGE, headers=closed)
        if not _same(_bearer(headers), self.secret):
            return PlainTextResponse("wrong secret", 403)
        answer = JSONResponse(self.experiment)
        answer.set_cookie(self.cookie, self.cookie_secret, httponly=True, samesite="strict")
        return answer

    def _carries_secret(self, headers: Headers) -> bool:
        cookie = SimpleCookie(headers.get("cookie", "")).get(self.cookie)
        return _same(cookie.value if cookie else "", self.cookie_secret) or _same(_bearer(headers), self.cookie_secret)


def _foreign(headers: Headers, method: str | None) -> str | None:
    """Return why a request is not of this machine or not of the server's own page, or None where it is."""
    host, origin, site = headers.get("host", ""), headers.get("origin"), headers.get("sec-fetch-site")
    if urlsplit(f"//{host}").hostname not in _LOOPBACK:
        return f"the host {host!r} is not this machine"
    if origin is not None and origin != f"http://{host}":
        return f"a page of {origin!r} may not ask"
    followed_link = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
    if site in {"cross-site", "same-site"} and not followed_link:
        return "another page may not ask"
    return None


def _bearer(headers: Headers) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" else ""


def _same(given: str, secret: str) -> bool:
    return hmac.compare_digest(given.encode(), secret.encode())


async def _refuse(reason: str, status: int, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})  # before it is accepted: the browser sees 403
    else:
        await PlainTextResponse(reason, status)(scope, receive, send)


def _unframed(send: Send) -> Send:
    """Keep a page out of other pages' frames, where a click could be led astray."""

    async def add(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).append("Content-Security-Policy", "frame-ancestors 'self'")
        await send(message)

    return add


def prefect() -> Gate:
    """Return Prefect's server behind the gate."""
    from prefect.server.api.server import create_app

    app: Any = create_app(final=True)
    return Gate(app, os.environ[OPEN_SECRET], os.environ[MLFLOW_SECRET], None)


def mlflow() -> Gate:
    """Return MLflow's server behind the gate.

    Stages write to the store directly, so that they need no server; hence this one does not proxy artifacts.
    """
    from mlflow.server.constants import ARTIFACT_ROOT_ENV_VAR, BACKEND_STORE_URI_ENV_VAR

    os.environ[BACKEND_STORE_URI_ENV_VAR] = os.environ[MLFLOW_STORE]
    os.environ[ARTIFACT_ROOT_ENV_VAR] = os.environ[MLFLOW_ARTIFACTS]
    from mlflow.server.fastapi_app import app

    return Gate(app, os.environ[OPEN_SECRET], os.environ[MLFLOW_SECRET], os.environ[MLFLOW_EXPERIMENT])
