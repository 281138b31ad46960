"""The command line of the page: what it checks before a model is loaded."""

from __future__ import annotations

import ast
import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mmovseg.errors import UserError
from mmovseg.web import command
from mmovseg.web.command import argument_parser, keep_to_this_machine, listen, require_gradio, serve_main

ROOT = Path(__file__).resolve().parents[2]
_WEB = {"gradio", "gradio_client", "uvicorn", "fastapi"}


def test_defaults_stay_on_this_machine():
    args = argument_parser().parse_args([])
    assert (args.host, args.port, args.max_upload_mb, args.max_pixels) == ("127.0.0.1", 7860, 64, 4_000_000)
    assert args.config_file == "miniearth/mmovseg_xs.py" and args.weights is None
    assert not hasattr(args, "share")


def test_without_gradio_one_sentence_says_what_to_install(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gradio" else found(name))
    with pytest.raises(UserError, match=r"needs Gradio.*pip install 'mmovseg\[web\]'"):
        require_gradio()


def test_only_the_page_and_its_server_import_gradio():
    users = set()
    for file in (ROOT / "mmovseg").rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        if not any(name in text for name in _WEB):
            continue
        for node in ast.walk(ast.parse(text)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if {name.split(".")[0] for name in names} & _WEB:
                users.add(file.relative_to(ROOT).as_posix())
    assert users == {"mmovseg/web/page.py", "mmovseg/web/server.py"}


def test_without_gradio_the_tool_ends_at_once():
    code = (
        "import sys; sys.modules['gradio'] = None\n"
        "import mmovseg, mmovseg.web.gate\n"
        "sys.path.insert(0, 'tools'); import serve_demo; serve_demo.main(['--port', '0'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert done.stderr == (
        "error: the page needs Gradio, which is not installed here: run pip install 'mmovseg[web]'\n"
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--port", "70000"], "--port must lie in 0..65535, got 70000"),
        (["--port", "x"], "argument --port: invalid int value: 'x'"),
        (["--max-upload-mb", "0"], "--max-upload-mb must lie above 0"),
        (["--max-upload-mb", "nan"], "--max-upload-mb must lie above 0"),
        (["--max-pixels", "0"], "--max-pixels must lie in"),
        (["--share"], "unrecognized arguments: --share"),
    ],
)
def test_options_out_of_range_are_refused(options, sentence):
    with pytest.raises(UserError) as caught:
        serve_main(options)
    assert sentence in str(caught.value)


def test_addresses_that_cannot_be_used_are_refused():
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} of '127.0.0.1' cannot be used .*choose another with --port"):
            listen("127.0.0.1", port)
    with pytest.raises(UserError, match="--host 'no such host' is no address of this machine"):
        listen("no such host", 0)


def test_the_default_listens_on_loopback_only():
    with listen("127.0.0.1", 0) as listening:
        assert listening.getsockname()[0] == "127.0.0.1" and listening.family == socket.AF_INET


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("0.0.0.0", True)])
def test_other_hosts_are_warned_about(monkeypatch, capsys, host, warned):
    served = []
    monkeypatch.setattr(command, "require_gradio", lambda: None)
    monkeypatch.setattr(command, "_serve", lambda args, listening, folder: served.append(folder))
    serve_main(["--host", host, "--port", "0"])
    assert (f"warning: --host {host} lets everybody" in capsys.readouterr().err) == warned
    assert len(served) == 1 and not served[0].exists()  # its files are gone with it


def test_nothing_in_gradio_may_ask_the_network(monkeypatch):
    for name in ("GRADIO_ANALYTICS_ENABLED", "GRADIO_SHARE", "GRADIO_ALLOWED_PATHS", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "/")
    for name in ("GRADIO_RUN_HISTORY", "GRADIO_SSR_MODE", "GRADIO_MCP_SERVER", "DO_NOT_TRACK"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(name, "")
    keep_to_this_machine()
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == os.environ["GRADIO_SHARE"] == "False"
    assert os.environ["GRADIO_SSR_MODE"] == os.environ["GRADIO_RUN_HISTORY"] == "False"
    assert "GRADIO_ALLOWED_PATHS" not in os.environ and os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"
