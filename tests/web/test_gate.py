"""Who may ask the page for what."""

from __future__ import annotations

import asyncio

import pytest

from mmovseg.web.gate import HEADERS, UPLOAD, Gate, is_loopback


def ask(path, *, method="GET", kind="http", only_loopback=True, **headers):
    """Return status, headers and body that a request gets, and whether the page saw it."""
    seen, sent = [], []

    async def page(scope, receive, send):
        seen.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-page", b"1")]})
        await send({"type": "http.response.body", "body": b"the page"})

    async def send(message):
        sent.append(message)

    named = {"host": "127.0.0.1:7860", **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope = {"type": kind, "method": method, "path": path}
    scope["headers"] = [(name.encode(), value.encode()) for name, value in named.items()]
    gate = Gate(page, only_loopback=only_loopback, max_upload_bytes=1000)
    asyncio.run(gate(scope, None, send))
    if not sent:
        return None, {}, b"", bool(seen)
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"], bool(seen)


@pytest.mark.parametrize("path", ["/", "/config", "/assets/index.js", "/theme.css", "/gradio_api/queue/data"])
def test_the_page_is_served_with_a_policy_that_allows_nothing_from_elsewhere(path):
    status, headers, body, seen = ask(path)
    assert (status, body, seen) == (200, b"the page", True) and headers[b"x-page"] == b"1"
    policy = headers[b"content-security-policy"].decode()
    assert "default-src 'self'" in policy and "http" not in policy and "*" not in policy
    assert all(headers[name] == value for name, value in HEADERS)


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/proxy=https://192.0.2.1/x",
        "/gradio_api/process_recording",
        "/gradio_api/openapi.json",
        "/gradio_api/runs",
        "/gradio_api/dev/reload",
        "/monitoring",
        "/login",
        "/docs",
        "/other",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_everything_else_that_gradio_serves_is_not_there(path, method):
    status, _, _, seen = ask(path, method=method, content_length="10")
    assert (status, seen) == (404, False)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT"])
def test_other_methods_are_refused(method):
    assert ask("/", method=method)[::3] == (404, False)


def test_other_hosts_and_other_pages_are_refused_on_this_machine_only():
    assert ask("/", host="evil.example")[::3] == (403, False)  # a name that somebody points at 127.0.0.1
    assert ask("/", host="evil.example", only_loopback=False)[::3] == (200, True)
    assert ask("/", host="localhost:7860")[::3] == (200, True)
    assert ask("/", host="[::1]:7860")[::3] == (200, True)
    join = {"method": "POST", "content_length": "10"}
    assert ask("/gradio_api/queue/join", origin="http://127.0.0.1:7860", **join)[::3] == (200, True)
    assert ask("/gradio_api/queue/join", origin="http://evil.example", **join)[::3] == (403, False)
    assert ask("/gradio_api/queue/join", origin="null", **join)[::3] == (403, False)
    assert ask("/gradio_api/queue/join", origin="http://127.0.0.1:8000", only_loopback=False, **join)[::3] == (
        403,
        False,
    )


def test_requests_say_how_long_they_are_and_are_not_too_long():
    assert ask(UPLOAD, method="POST", content_length="1000")[::3] == (200, True)
    status, _, body, seen = ask(UPLOAD, method="POST", content_length="1001")
    assert (status, seen) == (413, False) and body == b"a request of 1001 bytes is too large; the most is 1000"
    assert ask(UPLOAD, method="POST")[::3] == (411, False)
    assert ask(UPLOAD, method="POST", content_length="-5")[::3] == (411, False)
    assert ask("/gradio_api/queue/join", method="POST", content_length="300000")[::3] == (413, False)


def test_web_sockets_are_closed():
    assert ask("/", kind="websocket") == (None, {}, b"", False)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "LOCALHOST", "::1", "[::1]"])
def test_loopback_names(host):
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.0.2.1", "example.org", "", "localhost.example.org", "127.0.0.1.x"]
)
def test_other_names(host):
    assert not is_loopback(host)
