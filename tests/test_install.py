"""Environment and packaging: the two installers without a network, the requirements, the Makefile, the wheel."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import install_detectron2
import pytest
import setup_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mmovseg.projects import find_project_folders

ROOT = Path(__file__).resolve().parents[1]


# --- detectron2


def write_portable(package: Path) -> None:
    """A stand-in for detectron2's sources in which every port fits."""
    texts = {
        "data/aliases.py": "x = [np.bool, np.float]\n" * 9 + "y = np.int\nz = np.int32\n",
        "solver/schedule.py": "torch.optim.lr_scheduler._LRScheduler\n" * 9,
        "data/transforms/transform.py": "Image.LINEAR\n",
        "data/common.py": "rng.sample(self._fallback_candidates, k=1)\n",
        "model_zoo/model_zoo.py": "import pkg_resources\nf = pkg_resources.resource_filename(\n"
        '    "detectron2.model_zoo", os.path.join("configs", path)\n)\n',
        "export/__init__.py": "from .api import *\nfrom .flatten import x\n",
        "evaluation/coco_evaluation.py": "    from detectron2.evaluation.fast_eval_api import COCOeval_opt\n",
        "utils/visualizer.py": "return modified_color\n",
        "engine/launch.py": "    assert torch.cuda.is_available(), 'no'\n    backend=\"NCCL\"\n"
        "    assert num_gpus <= 1\n    torch.cuda.set_device(0)\n",
    }
    for name, text in texts.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)


def test_ports_change_what_they_should(tmp_path):
    write_portable(tmp_path)
    install_detectron2.apply_ports(tmp_path)
    aliases = (tmp_path / "data/aliases.py").read_text()
    assert aliases == "x = [bool, float]\n" * 9 + "y = int\nz = np.int32\n"
    model_zoo = (tmp_path / "model_zoo/model_zoo.py").read_text()
    assert model_zoo == 'f = os.path.join(os.path.dirname(__file__), "configs", path)\n'
    launch = (tmp_path / "engine/launch.py").read_text().splitlines()
    assert launch == [
        '    backend = "nccl" if torch.cuda.is_available() else "gloo"',
        "    backend=backend",
        '    if backend == "nccl":',
        "        assert num_gpus <= 1",
        "        torch.cuda.set_device(0)",
    ]


def test_a_port_that_fits_elsewhere_is_an_error(tmp_path):
    write_portable(tmp_path)
    (tmp_path / "data/more.py").write_text("np.bool\n")
    with pytest.raises(install_detectron2.InstallError, match=r"fits 20 places in \*\*/\*\.py and not 19"):
        install_detectron2.apply_ports(tmp_path)


def test_the_stub_of_the_extension_names_the_operator():
    stub = {"__name__": "detectron2._C"}
    exec(install_detectron2.EXTENSION_STUB, stub)
    assert stub["has_cuda"]() is False
    with pytest.raises(AttributeError, match="nms_rotated is a compiled operator"):
        stub["__getattr__"]("nms_rotated")


def test_a_detectron2_that_is_there_is_left_alone(monkeypatch, capsys):
    monkeypatch.setattr(install_detectron2, "install", lambda: pytest.fail("must not install"))
    assert install_detectron2.main([]) == 0
    assert re.fullmatch(r"detectron2 \S+ \(.*\) in .*detectron2: left alone\n", capsys.readouterr().out)
    assert install_detectron2.main(["--check"]) == 0


def test_failures_are_one_clear_message(monkeypatch, capsys):
    monkeypatch.setattr(install_detectron2, "find_detectron2", lambda: None)
    assert install_detectron2.main(["--check"]) == 1
    assert "run: python tools/install_detectron2.py" in capsys.readouterr().out

    def wrong_hash(*arguments, purpose, **_):
        if "download" in arguments:
            raise install_detectron2.InstallError(f"cannot {purpose}; pip said:\nHASHES DO NOT MATCH")
        assert arguments[0] != "wheel", "nothing of the archive may be built"

    monkeypatch.setattr(install_detectron2, "run_pip", wrong_hash)
    assert install_detectron2.main([]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: detectron2 was not installed: cannot fetch pb1-detectron2==0.6 with the expected")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert install_detectron2.main([]) == 2
    assert "torch is not installed" in capsys.readouterr().err


# --- the environment of make


@pytest.fixture
def steps(monkeypatch):
    """Record the steps that setup_environment would run; the creating one leaves a `bin/python`."""
    done: list[str] = []

    def run(command, *, what, log):
        done.append(what)
        log.write_text("installed\n")
        if "-m venv" in " ".join(map(str, command)):
            (Path(command[3]) / "bin").mkdir(parents=True)
            (Path(command[3]) / "bin" / "python").touch()

    monkeypatch.setattr(setup_environment, "run", run)
    return done


def build(venv: Path, key: str = "1") -> int:
    return setup_environment.main(["--venv", str(venv), "--stamp", str(venv / f".installed-{key}")])


def test_first_call_installs_and_the_second_does_not(tmp_path, steps):
    venv = tmp_path / "venv"
    assert build(venv) == 0
    assert [step.split()[0] for step in steps] == ["creating", "installing", "installing", "installing", "checking"]
    assert (venv / ".installed-1").is_file()
    steps.clear()
    assert build(venv) == 0
    assert steps == []
    assert build(venv, key="2") == 0  # other requirements: added to what is there
    assert not any(step.startswith("creating") for step in steps)
    assert sorted(path.name for path in venv.glob(".installed-*")) == [".installed-2"]


def test_an_environment_in_the_checkout_gets_the_checkout_linked(tmp_path, steps, monkeypatch):
    monkeypatch.setattr(setup_environment, "ROOT", tmp_path)
    assert build(tmp_path / ".venv") == 0
    assert any("pip install --editable" in step for step in steps)


def test_an_interrupted_installation_is_built_again(tmp_path, steps, monkeypatch, capsys):
    venv, works = tmp_path / "venv", setup_environment.install

    def breaks(venv, log):
        (venv / "half-unpacked").touch()
        raise setup_environment.SetupError("the network went away")

    monkeypatch.setattr(setup_environment, "install", breaks)
    assert build(venv) == 2
    assert "error: the network went away" in capsys.readouterr().err
    assert not (venv / ".installed-1").exists()
    monkeypatch.setattr(setup_environment, "install", works)
    assert build(venv) == 0
    assert "left incomplete" in capsys.readouterr().out
    assert not (venv / "half-unpacked").exists()


def test_somebody_elses_environment_is_never_deleted(tmp_path, steps, monkeypatch):
    venv = tmp_path / "own"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").touch()
    (venv / "precious").write_text("x")

    def breaks(venv, log):
        raise KeyboardInterrupt

    works = setup_environment.install
    monkeypatch.setattr(setup_environment, "install", breaks)
    assert build(venv) == 130
    monkeypatch.setattr(setup_environment, "install", works)
    assert build(venv) == 0
    assert (venv / "precious").read_text() == "x"
    assert not any(step.startswith("creating") for step in steps)


def test_an_old_python_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(setup_environment, "OLDEST_PYTHON", (99, 0))
    assert build(tmp_path / "venv") == 2
    assert "make PYTHON=" in capsys.readouterr().err
    assert not (tmp_path / "venv").exists()


def test_a_failing_step_shows_the_end_of_its_output(tmp_path):
    code = "print('reason ' * 3); raise SystemExit(3)"
    with pytest.raises(setup_environment.SetupError, match="step 'trying'.*\n.*reason reason reason"):
        setup_environment.run([sys.executable, "-c", code], what="trying", log=tmp_path / "log")


def test_progress_line_hides_where_packages_come_from(tmp_path):
    log = tmp_path / "log"
    wheel = "https://host.example/a/torch-2.14.1-cp311-cp311-manylinux_2_28_x86_64.whl"
    log.write_text(f"Collecting torch\n  Downloading {wheel} (500 MB)\n  other\n")
    assert setup_environment.last_words(log) == "Downloading torch-2.14.1 (500 MB)"
    log.write_text("Installing collected packages: a, b\n")
    assert setup_environment.last_words(log) == "unpacking the packages"


def make(*arguments: str) -> str:
    outer = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "VENV", "PYTHON")  # of the make that runs these tests
    environment = {key: value for key, value in os.environ.items() if key not in outer}
    done = subprocess.run(["make", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_installs_only_without_the_stamp(tmp_path):
    key = make("--silent", "env-key", f"PYTHON={sys.executable}").strip()
    number, version = key.split("-")
    assert version == f"py{sys.version_info[0]}{sys.version_info[1]}"
    first = make("-n", "test", f"VENV={tmp_path}")
    assert "setup_environment.py" in first
    (tmp_path / f".installed-{number}").touch()
    second = make("-n", "test", f"VENV={tmp_path}").splitlines()
    assert [line.split('python" ')[1] for line in second] == [
        "-m ruff check .",
        "-m mypy",
        '-m pytest -m "not slow and not gpu"',
    ]


# --- requirements


def read(name: str) -> list[str]:
    lines = (ROOT / "requirements" / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_every_requirement_is_pinned_within_its_bounds_and_has_a_reason():
    pins = {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in read("constraints.txt")}
    for line in read("base.in") + read("dev.in"):
        wanted = Requirement(line.split("#")[0].strip())
        assert wanted.specifier.contains(pins[canonicalize_name(wanted.name)]), line
        assert "#" in line or not wanted.specifier, f"no reason beside the bound: {line}"


def imported_top_levels(*folders: str) -> set[str]:
    names: set[str] = set()
    for file in (file for folder in folders for file in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.split(".")[0])
    return names


def test_declared_dependencies_are_the_used_ones():
    declared = {canonicalize_name(Requirement(line.split("#")[0]).name) for line in read("base.in")}
    owners = importlib.metadata.packages_distributions()
    imported = imported_top_levels("mmovseg", "configs", "projects", "tools") - set(sys.stdlib_module_names)
    used = {canonicalize_name(name) for module in imported for name in owners.get(module, [])}
    of_tests_only = {canonicalize_name(Requirement(line.split("#")[0]).name) for line in read("dev.in")}
    via_declared = {"detectron2", "mmovseg", "huggingface-hub", "packaging", "pyyaml"}  # brought by declared ones
    via_declared |= {"fastapi", "gradio-client", "starlette", "uvicorn"}  # brought by gradio, which bounds them
    assert used - declared - via_declared - of_tests_only == set()
    of_detectron2 = {
        canonicalize_name(Requirement(line).name) for line in importlib.metadata.requires("detectron2") or []
    }
    assert declared - used - of_detectron2 - {"opencv-python-headless"} == set()  # the Visualizer imports OpenCV


# --- packaging


def test_projects_are_found_in_a_checkout_only(tmp_path):
    for name in ("One/one", "Two/two"):
        (tmp_path / "projects" / name).mkdir(parents=True)
    (tmp_path / "projects/One/one/__init__.py").touch()
    assert find_project_folders(tmp_path) == []
    (tmp_path / "setup.py").touch()
    assert find_project_folders(tmp_path) == [tmp_path / "projects" / "One"]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of what the wheel is made of, with one more project."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in ("mmovseg", "configs", "projects", "requirements"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    sample = copy / "projects" / "Sample"
    (sample / "sample_project").mkdir(parents=True)
    (sample / "configs").mkdir()
    (sample / "sample_project" / "__init__.py").write_text("ANSWER = 42\n")
    (sample / "configs" / "one.py").write_text("value = dict(x=1)\n")
    return copy


FOUND = """
import mmovseg, mmovseg.projects.sample_project as project
from mmovseg.config import find_config
from mmovseg.data.vocabulary import get_vocabulary
print(project.ANSWER, len(get_vocabulary("miniearth", "clean")))
print(mmovseg.__file__)
print(find_config("common/optim.py"))
print(find_config("projects/Sample/configs/one.py"))
"""


def run_elsewhere(path: Path, folder: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", FOUND],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_bare_checkout_works_from_another_folder(checkout, tmp_path):
    assert run_elsewhere(checkout, tmp_path) == [
        "42 7",
        str(checkout / "mmovseg" / "__init__.py"),
        str(checkout / "configs" / "common" / "optim.py"),
        str(checkout / "projects" / "Sample" / "configs" / "one.py"),
    ]


def test_a_wheel_works_from_another_folder(checkout, tmp_path):
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps", "--no-index"]
    done = subprocess.run(
        [*pip, "--no-build-isolation", "--wheel-dir", tmp_path, checkout], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    site = tmp_path / "site"
    shutil.unpack_archive(next(tmp_path.glob("mmovseg-*.whl")), site, format="zip")
    assert run_elsewhere(site, tmp_path) == [
        "42 7",
        str(site / "mmovseg" / "__init__.py"),
        str(site / "mmovseg" / "configs" / "common" / "optim.py"),
        str(site / "mmovseg" / "projects" / "Sample" / "configs" / "one.py"),
    ]
    files = (path for path in (checkout / "mmovseg").rglob("*") if path.is_file())  # data cards are read here only
    inside = {str(path.relative_to(checkout)) for path in files if path.suffix not in (".md", ".png")}
    shipped = {str(path.relative_to(site)) for path in (site / "mmovseg").rglob("*") if path.is_file()}
    assert sorted(inside - shipped) == []
    assert {path.split("/")[0] for path in (str(item.relative_to(site)) for item in site.iterdir())} == {
        "mmovseg",
        next(site.glob("*.dist-info")).name,
    }
