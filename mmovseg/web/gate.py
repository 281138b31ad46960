"""What stands between the network and the page: a short list of what may be asked, by whom, and how much at a time.

Gradio serves more than this page uses (other kinds of components, a proxy, an API). All of that is answered with 404,
and every answer tells the browser to load nothing from elsewhere, so that the page works, and stays, without a network.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_GET = ("/assets/", "/static/", "/gradio_api/file=", "/gradio_api/heartbeat/")
_GET_EXACTLY = (
    "/",
    "/config",
    "/theme.css",
    "/favicon.ico",
    "/manifest.json",
    "/robots.txt",
    "/gradio_api/app_id",
    "/gradio_api/info",
    "/gradio_api/queue/data",
    "/gradio_api/startup-events",
    "/gradio_api/theme.css",
    "/gradio_api/upload_progress",
)
UPLOAD = "/gradio_api/upload"
_POST_EXACTLY = ("/gradio_api/queue/join", "/gradio_api/cancel", "/gradio_api/reset", UPLOAD)
_QUESTION_BYTES = 256_000  # of a request that is no upload

_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",  # Gradio's own page needs both
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'self'",
    )
)
HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


def is_loopback(host: str) -> bool:
    """Say whether a host name or address means this machine only."""
    name = host.strip("[]")
    if name.casefold() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class Gate:
    """An ASGI application around another one.

    Args:
        app: the page.
        only_loopback: refuse requests that name another host than this machine, which a web site elsewhere could
            otherwise make a browser send here.
        max_upload_bytes: of one request.
    """

    def __init__(self, app: App, *, only_loopback: bool, max_upload_bytes: int) -> None:
        self.app = app
        self.only_loopback = only_loopback
        self.max_upload_bytes = max_upload_bytes

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it with one line."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if scope["type"] != "http":
            return  # a web socket, which the page does not use: the server closes it
        if refusal is not None:
            status, text = refusal
            start = {"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]}
            await send(_with_headers(start))
            await send({"type": "http.response.body", "body": text.encode()})
            return
        await self.app(scope, receive, lambda message: send(_with_headers(message)))

    def _refusal(self, scope: Message) -> tuple[int, str] | None:
        """Return status and sentence when a request is not for this page."""
        headers = {name.lower(): value.decode("latin-1") for name, value in scope.get("headers", ())}
        host = headers.get(b"host", "")
        if self.only_loopback and not is_loopback(urlsplit(f"//{host}").hostname or ""):
            return 403, "this page is for this machine only"
        origin = headers.get(b"origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return 403, "requests of other pages are not answered"
        method, path = scope.get("method", ""), scope.get("path", "")
        if method in ("GET", "HEAD"):
            return None if path in _GET_EXACTLY or path.startswith(_GET) else (404, "there is nothing here")
        if method != "POST" or path not in _POST_EXACTLY:
            return 404, "there is nothing here"
        length = headers.get(b"content-length", "")
        if not length.isdigit():
            return 411, "a request must say how long it is"
        limit = self.max_upload_bytes if path == UPLOAD else _QUESTION_BYTES
        if int(length) > limit:
            return 413, f"a request of {int(length)} bytes is too large; the most is {limit}"
        return None


def _with_headers(message: Message) -> Message:
    if message["type"] != "http.response.start":
        return message
    return {**message, "headers": [*message.get("headers", ()), *HEADERS]}
