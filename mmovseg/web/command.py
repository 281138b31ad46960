"""`tools/serve_demo.py`: read the command line, load the model, serve the page until Ctrl-C."""

from __future__ import annotations

import argparse
import importlib.util
import os
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mmovseg.errors import OneLineParser, UserError
from mmovseg.inference.scene.arguments import DEFAULT_CONFIG, DEFAULT_WEIGHTS
from mmovseg.web.gate import is_loopback

DEFAULT_PORT = 7860
_DESCRIPTION = """
Serve a page on this machine: choose a MiniEarth scene or upload an optical and a SAR raster, type class names, see both
images, the map and its legend side by side, and download the map as a GeoTIFF. Needs Gradio (the extra `web`). Nothing
is fetched from or sent to anywhere else. Ctrl-C ends it.
"""


def argument_parser() -> OneLineParser:
    """Return the parser."""
    parser = OneLineParser(description=_DESCRIPTION, allow_abbrev=False)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s, this machine)")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="default: %(default)s; 0 takes a free one")
    parser.add_argument("--config-file", default=DEFAULT_CONFIG, metavar="F", help="model (default: %(default)s)")
    parser.add_argument("--weights", metavar="F", help="checkpoint (default: the one that the config names)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--max-upload-mb", type=float, default=64.0, metavar="MB", help="largest file (default: %(default)g)"
    )
    parser.add_argument(
        "--max-pixels", type=int, default=4_000_000, metavar="N", help="largest raster (default: %(default)s)"
    )
    return parser


def serve_main(argv: Sequence[str] | None = None) -> None:
    """Serve the page; `argv` None takes the command line of the process.

    Raises:
        UserError: Gradio is missing, an option is out of range, the address is taken, or the model cannot be loaded.
    """
    args = argument_parser().parse_args(argv)
    _check(args)
    require_gradio()
    listening = listen(args.host, args.port)  # before the model is loaded, so that a taken port is told at once
    try:
        if not is_loopback(args.host):
            print(
                f"warning: --host {args.host} lets everybody who reaches this machine use the page; it has no password "
                "and no encryption",
                file=sys.stderr,
            )
        keep_to_this_machine()
        with tempfile.TemporaryDirectory(prefix="mmovseg-page-", ignore_cleanup_errors=True) as folder:
            _serve(args, listening, Path(folder))
    finally:
        listening.close()


def require_gradio() -> None:
    """Raise `UserError` when Gradio is not installed."""
    if importlib.util.find_spec("gradio") is None:
        raise UserError("the page needs Gradio, which is not installed here: run pip install 'mmovseg[web]'")


def keep_to_this_machine() -> None:
    """Switch off everything in Gradio and its libraries that would ask the network. To be called before its import."""
    os.environ.update(
        GRADIO_ANALYTICS_ENABLED="False",
        GRADIO_RUN_HISTORY="False",
        GRADIO_SHARE="False",
        GRADIO_SSR_MODE="False",
        GRADIO_MCP_SERVER="False",
        HF_HUB_DISABLE_TELEMETRY="1",
        DO_NOT_TRACK="1",
    )
    for name in ("GRADIO_ALLOWED_PATHS", "GRADIO_ROOT_PATH", "GRADIO_PROXY_URLS"):
        os.environ.pop(name, None)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens at an address.

    Raises:
        UserError: the address is taken, not allowed, or none of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UserError(f"--host '{host}' is no address of this machine ({error.strerror})") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(64)
    except OSError as error:
        listening.close()
        raise UserError(
            f"port {port} of '{host}' cannot be used ({error.strerror}); choose another with --port"
        ) from error
    return listening


def _check(args: argparse.Namespace) -> None:
    if not 0 <= args.port <= 65535:
        raise UserError(f"--port must lie in 0..65535, got {args.port}")
    if not 0 < args.max_upload_mb <= 4096:
        raise UserError(f"--max-upload-mb must lie above 0 and up to 4096, got {args.max_upload_mb:g}")
    if not 1 <= args.max_pixels <= 100_000_000:
        raise UserError(f"--max-pixels must lie in 1..100,000,000, got {args.max_pixels}")


def _serve(args: argparse.Namespace, listening: socket.socket, folder: Path) -> None:
    """Load the model and answer requests until Ctrl-C; `folder` takes everything that is written."""
    from mmovseg.inference.predictor import Predictor
    from mmovseg.web.answer import MapMaker
    from mmovseg.web.server import serve
    from mmovseg.web.uploads import UploadLimits

    weights = args.weights or (DEFAULT_WEIGHTS if args.config_file == DEFAULT_CONFIG else None)
    print(f"loading {args.config_file} with {weights or 'the weights that it names'}", flush=True)
    predictor = Predictor(args.config_file, weights, args.device)
    limits = UploadLimits(max_bytes=round(args.max_upload_mb * 1e6), max_pixels=args.max_pixels)
    maker = MapMaker(predictor, folder=folder, limits=limits)
    is_shipped = args.config_file == DEFAULT_CONFIG and args.weights is None
    model_name = None if is_shipped else f"{args.config_file}, {weights or 'weights of the config'}"
    host = f"[{args.host.strip('[]')}]" if ":" in args.host else args.host
    serve(
        maker,
        listening,
        folder=folder,
        model_name=model_name,
        only_loopback=is_loopback(args.host),
        address=f"http://{host}:{listening.getsockname()[1]}",
    )
