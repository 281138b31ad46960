"""The page behind its gate, served by uvicorn in this process. Needs the extra `web`."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import uvicorn

from mmovseg.web.answer import MapMaker
from mmovseg.web.gate import Gate

_GRACE_S = 2


def serve(
    maker: MapMaker,
    listening: socket.socket,
    *,
    folder: Path,
    model_name: str | None,
    only_loopback: bool,
    address: str,
) -> None:
    """Answer requests until Ctrl-C or a termination signal.

    Args:
        maker: makes the maps.
        listening: bound and listening.
        folder: everything that arrives is kept here.
        model_name: shown on the page; None = the small model that ships with the package.
        only_loopback: see `Gate`.
        address: to print.
    """
    os.environ["GRADIO_TEMP_DIR"] = str(folder / "uploads")
    from fastapi import FastAPI

    from mmovseg.web.page import build_page, mount_page

    max_bytes = maker.limits.max_bytes
    page = mount_page(FastAPI(openapi_url=None), build_page(maker, model_name=model_name), max_bytes=max_bytes)
    # Two files in one request, and what multipart adds to them.
    gate = Gate(page, only_loopback=only_loopback, max_upload_bytes=2 * max_bytes + 100_000)
    config = uvicorn.Config(gate, log_level="warning", ws="none", timeout_graceful_shutdown=_GRACE_S)
    server = uvicorn.Server(config)
    print(f"open {address} in a browser; Ctrl-C ends the page", flush=True)
    try:
        server.run(sockets=[listening])
    except KeyboardInterrupt:  # uvicorn raises the signal again once everything is closed
        pass
    print("the page is closed", flush=True)
