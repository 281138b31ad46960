"""Every case of the catalogue of bad input: status 2, one sentence that says what, nothing left behind, no hang."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mmovseg.inference.scene import command
from mmovseg.inference.scene.arguments import argument_parser
from mmovseg.testing.malformed import BadCase, catalogue, copy_good_files, listing, write_good_files

ROOT = Path(__file__).resolve().parents[3]
CASES = catalogue()
SECONDS = 10
AS_PROCESSES = (
    "optical: missing",
    "optical: a pipe",
    "optical: cut in the pixels",
    "SAR: both sides 2^31 - 1",
    "SAR: linear power",
    "SAR: another UTM zone",
    "SAR: a transform of NaN",
    "options: a path that is no UTF-8",
    "model: weights cut",
    "output: below /proc",
)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good") / "files"
    write_good_files(folder)
    return folder


@pytest.fixture(scope="module")
def load_once():
    """The default model, loaded once for each modality; other models are loaded as always."""
    real = command.load_predictor
    kept = {"both": real(argument_parser().parse_args(["--prompts", "a", "--device", "cpu", "--quiet"]))}

    def load(args):
        if args.weights is not None or args.config_file != command.DEFAULT_CONFIG or args.device != "cpu":
            return real(args)
        if args.modality not in kept:
            kept[args.modality] = real(args)
        return kept[args.modality]

    return load


@pytest.fixture
def time_limit():
    def late(*_):
        raise TimeoutError(f"took more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def prepare(case: BadCase, good: Path, folder: Path) -> tuple[list[str], dict]:
    copy_good_files(good, folder)
    if case.make is not None:
        case.make(folder)
    return case.arguments(folder), listing(folder)


def assert_refused(case: BadCase, status: object, error: str) -> None:
    assert status == 2, error
    assert error.startswith("error: ") and error.count("\n") == 1 and error.endswith("\n")
    assert "Traceback" not in error and len(error) < 1500
    assert case.word in error


def test_there_are_many_and_they_differ(tmp_path, good):
    assert len(CASES) >= 200
    commands = {(case.make, tuple(case.arguments(tmp_path))) for case in CASES}
    assert len(commands) == len(CASES)
    assert {case.name for case in CASES} >= set(AS_PROCESSES) and len(AS_PROCESSES) == 10


@pytest.mark.parametrize("options", [{}, {"--cloud-mask": ("{folder}/clouds.tif",), "--confidence": ()}])
def test_what_the_cases_start_from_is_good(good, tmp_path, monkeypatch, load_once, options):
    monkeypatch.setattr(command, "load_predictor", load_once)
    case = BadCase("good", "", options=options)
    arguments, before = prepare(case, good, tmp_path / "case")
    assert command.main(arguments) == 0
    new = set(listing(tmp_path / "case")) - set(before)
    layers = {"map.confidence.tif", "map.quality.tif"} if options else set()
    assert new == {"map.tif", "map.json"} | layers


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_is_refused_in_one_sentence(case, good, tmp_path, monkeypatch, capfd, load_once, time_limit):
    monkeypatch.setattr(command, "load_predictor", load_once)
    arguments, before = prepare(case, good, tmp_path / "case")
    capfd.readouterr()
    with pytest.raises(SystemExit) as stop:
        command.main(arguments)
    assert_refused(case, stop.value.code, capfd.readouterr().err)
    assert listing(tmp_path / "case") == before


@pytest.mark.slow
@pytest.mark.parametrize("name", AS_PROCESSES)
def test_bad_input_ends_a_real_process(name, good, tmp_path):
    case = next(case for case in CASES if case.name == name)
    arguments, before = prepare(case, good, tmp_path / "case")
    done = subprocess.run(
        [sys.executable, "-m", "mmovseg.cli", "predict", *arguments],
        cwd=ROOT,
        capture_output=True,
        timeout=300,  # ten for the work, the rest for a busy machine to import torch
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert_refused(case, done.returncode, done.stderr.decode())
    assert done.stdout == b""
    assert listing(tmp_path / "case") == before


@pytest.fixture
def small_disk(tmp_path):
    """A file system with 64 KiB, if this user may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    done = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=64k", "none", str(folder)], capture_output=True, check=False
    )
    if not mount or done.returncode:
        pytest.skip("a file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True, capture_output=True)


def test_a_full_disk_is_refused(good, tmp_path, monkeypatch, capfd, load_once, small_disk):
    monkeypatch.setattr(command, "load_predictor", load_once)
    (small_disk / "ballast").write_bytes(b"x" * 60_000)
    before = listing(small_disk)
    case = BadCase("full disk", "map.tif", options={"--output": (f"{small_disk}/map.tif",)})
    arguments, _ = prepare(case, good, tmp_path / "case")
    with pytest.raises(SystemExit) as stop:
        command.main(arguments)
    assert_refused(case, stop.value.code, capfd.readouterr().err)
    assert listing(small_disk) == before
