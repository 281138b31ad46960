"""The console command: instant help, one line for what is wrong, every subcommand where it should be."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import predict_scene
import pytest

import mmovseg
from mmovseg import cli
from mmovseg.errors import OneLineParser, UserError, exit_on_user_error, one_line
from mmovseg.inference.scene import command
from mmovseg.testing.malformed import GOOD_COMMAND

ROOT = Path(__file__).resolve().parents[1]


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from mmovseg import cli; assert cli.main(['--help']) == 0\n"
        "print(sorted({'torch', 'numpy', 'rasterio', 'detectron2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert all(f"  {name} " in done.stdout for name in ("predict", "check-pair", "serve", "doctor"))


def test_help_of_predict_does_not_wait_for_torch():
    code = (
        "import sys; from mmovseg import cli\n"
        "try: cli.main(['predict', '--help'])\n"
        "except SystemExit as stop: print(stop.code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 False"
    assert "usage: mmovseg predict" in done.stdout and "--cloud-mask" in done.stdout


def test_version_and_bare_call(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"{mmovseg.__version__}\n"
    assert cli.main([]) == 0
    assert "usage: mmovseg COMMAND" in capsys.readouterr().out


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_is_in_the_package(name):
    spec = importlib.util.find_spec(cli.COMMANDS[name].module)
    assert spec is not None and "tools" not in spec.origin.split(os.sep)
    assert f"def {cli.COMMANDS[name].function}(" in Path(spec.origin).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["predikt"], "error: there is no command 'predikt'; known: predict, check-pair, serve, doctor"),
        (["a\nb"], "error: there is no command 'a\\nb'"),
        (["doctor", "--jason"], "error: unrecognized arguments: --jason (see mmovseg doctor --help)"),
        (["predict"], "error: the following arguments are required: --prompts (see mmovseg predict --help)"),
    ],
)
def test_mistakes_take_one_line(words, sentence, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    out, err = capsys.readouterr()
    assert (stop.value.code, out) == (2, "")
    assert err.startswith(sentence) and err.count("\n") == 1


def test_a_missing_extra_is_said_with_the_way_to_get_it(monkeypatch, capsys):
    def gone(name):
        raise ModuleNotFoundError("No module named 'gradio'", name="gradio")

    monkeypatch.setattr(cli.importlib, "import_module", gone)
    with pytest.raises(SystemExit):
        cli.main(["serve"])
    assert capsys.readouterr().err == (
        "error: this command needs the package 'gradio'; run: pip install 'mmovseg[web]'\n"
    )


def test_a_fault_of_our_own_is_not_called_a_missing_package(monkeypatch):
    def gone(name):
        raise ModuleNotFoundError("No module named 'mmovseg.nothing'", name="mmovseg.nothing")

    monkeypatch.setattr(cli.importlib, "import_module", gone)
    with pytest.raises(ModuleNotFoundError):
        cli.main(["serve"])


def test_the_tool_and_the_console_command_are_one(monkeypatch):
    assert predict_scene.main is command.main
    assert '"mmovseg = mmovseg.cli:main"' in (ROOT / "setup.py").read_text(encoding="utf-8")


def test_ctrl_c_says_how_to_go_on(monkeypatch, capsys, tmp_path):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "load_predictor", interrupted)
    for name in ("optical.tif", "sar.tif"):
        (tmp_path / name).touch()
    words = [part for option, values in GOOD_COMMAND.items() for part in (option, *values)]
    with pytest.raises(SystemExit) as stop:
        cli.main(["predict", *[word.replace("{folder}", str(tmp_path)) for word in words]])
    assert stop.value.code == 130
    assert capsys.readouterr().err.strip() == (
        "stopped: the finished parts of the map are kept; the same command goes on there, --restart begins anew"
    )


def test_any_message_fits_in_one_line():
    assert one_line("  a\nb\tc\x1b[31m ") == "a\\nb\\tc\\x1b[31m"
    assert one_line(os.fsdecode(b"\xff.tif")) == "\\udcff.tif"
    assert one_line("Köln 北京") == "Köln 北京"


def test_parsers_complain_like_everything_else(capsys):
    parser = OneLineParser(prog="x")
    parser.add_argument("--n", type=int)
    with pytest.raises(UserError, match=r"argument --n: invalid int value: 'a' \(see x --help\)"):
        parser.parse_args(["--n", "a"])
    with pytest.raises(SystemExit) as stop:
        exit_on_user_error(parser.parse_args)(["--m"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: unrecognized arguments: --m (see x --help)\n"
