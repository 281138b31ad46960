"""The shape of the repository: who imports whom, how long files get, and that the README's commands exist."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("mmovseg", "projects", "configs", "tools", "datasets")  # each may import itself and what stands before it
LONGEST_FILE = 500
DATA_TABLES: set[str] = set()  # files that are one table of class names or keys may be longer


def source_files(*folders: str) -> list[Path]:
    return [file for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))]


def text_files() -> list[Path]:
    patterns = ("*.py", "*.md", "*.toml", "*.in", "*.txt", "*.json", "*.yaml", "*.csv", "Makefile", "run")
    folders = ("mmovseg", "projects", "configs", "tools", "tests", "datasets", "requirements", "results", ".ci")
    files = {file for name in folders for pattern in patterns for file in (ROOT / name).rglob(pattern)}
    return sorted(files | {file for pattern in patterns for file in ROOT.glob(pattern)})


def imported_modules(file: Path) -> set[str]:
    """Absolute names of everything that a file imports, relative imports resolved."""
    names: set[str] = set()
    package = file.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module or "") if part)
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return names


def layer_of_module(name: str) -> str | None:
    if name.startswith("mmovseg.projects."):
        return "projects"
    if name.startswith("mmovseg.configs"):
        return "configs"
    top = name.split(".")[0]
    return top if top in LAYERS else None


def find_wrong_imports(file: Path) -> list[str]:
    here = LAYERS.index(file.relative_to(ROOT).parts[0])
    wrong = []
    for name in sorted(imported_modules(file)):
        layer = layer_of_module(name)
        if layer is not None and LAYERS.index(layer) > here:
            wrong.append(f"{file.relative_to(ROOT)} imports {name}")
    return wrong


def test_imports_go_one_way():
    assert [line for file in source_files(*LAYERS) for line in find_wrong_imports(file)] == []


def test_the_import_check_sees_a_wrong_import(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    bad = tmp_path / "mmovseg" / "bad.py"
    bad.parent.mkdir()
    bad.write_text("import os\nfrom mmovseg.projects.cmu import encoder\nfrom ..tools import demo\n")
    found = find_wrong_imports(bad)
    assert found == [
        "mmovseg/bad.py imports mmovseg.projects.cmu",
        "mmovseg/bad.py imports mmovseg.projects.cmu.encoder",
        "mmovseg/bad.py imports tools",
        "mmovseg/bad.py imports tools.demo",
    ]


def test_projects_do_not_import_each_other():
    for folder in (path for path in (ROOT / "projects").iterdir() if path.is_dir()):
        own = {init.parent.name for init in folder.glob("*/__init__.py")}
        packages = sorted(path for path in folder.iterdir() if path.name in own)  # configs may combine projects
        for file in (file for package in packages for file in package.rglob("*.py")):
            used = {name.split(".")[2] for name in imported_modules(file) if name.startswith("mmovseg.projects.")}
            assert used <= own, f"{file.relative_to(ROOT)} imports {sorted(used - own)}"


@pytest.mark.parametrize("name", ["CMU", "CoDeMAE", "CrossEarthSAR", "SARText"])
def test_every_project_has_a_readme(name):
    assert (ROOT / "projects" / name / "README.md").read_text(encoding="utf-8").startswith("# ")


def test_files_stay_short():
    long = {}
    for file in source_files(*LAYERS, "tests"):
        lines = len(file.read_text(encoding="utf-8").splitlines())
        if lines > LONGEST_FILE and str(file.relative_to(ROOT)) not in DATA_TABLES:
            long[str(file.relative_to(ROOT))] = lines
    assert long == {}


def test_every_folder_with_code_is_a_package():
    folders = {file.parent for file in source_files("mmovseg")}
    assert [str(folder.relative_to(ROOT)) for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []


def test_no_paths_of_one_machine_and_no_index_hosts():
    # spelled with brackets, so that this file does not hold what it looks for
    folders, hosts = ("r[o]ot", "w[o]rk", r"h[o]me/\w+", r"t[m]p/\w+"), (r"py[p]i\.org", "python[h]osted")
    forbidden = re.compile(rf"(?<![\w.~])/(?:{'|'.join(folders)})/|{'|'.join(hosts)}")
    found = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for file in text_files()
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if forbidden.search(line)
    ]
    assert found == []


def shell_commands(markdown: str) -> list[str]:
    """The commands in a Markdown text's shell blocks: lines joined at backslashes, comments and prompts removed."""
    blocks = re.findall(r"^```(?:bash|sh|shell|console)\n(.*?)^```", markdown, re.MULTILINE | re.DOTALL)
    lines = [line.strip().removeprefix("$ ") for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def module_file(name: str) -> Path:
    """The file of a module of the package, or of a project under its name there."""
    path = name.replace(".", "/") + ".py"
    inner = path.removeprefix("mmovseg/projects/")
    return next(iter((ROOT / "projects").glob(f"*/{inner}")), ROOT / path) if inner != path else ROOT / path


def find_command_faults(command: str) -> list[str]:
    """What is wrong with one documented command: unknown make targets, tools, modules, options or config files."""
    faults = []
    words = [word for word in shlex.split(command, comments=True) if not re.match(r"^[A-Z_0-9]+=", word)]
    if words and words[0] == "make":
        targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        faults += [f"make has no target {word}" for word in words[1:] if word not in targets and "=" not in word]
    for word in words:
        value = word.split("=", 1)[-1]
        if re.match(r"^(tools|configs|projects|datasets|mmovseg|requirements)/", value) and "<" not in value:
            faults += [] if (ROOT / value).exists() else [f"{value} does not exist"]
    script = next((ROOT / word for word in words if re.match(r"^(tools|datasets)/\w+\.py$", word)), None)
    if "-m" in words and words[words.index("-m") + 1].startswith("mmovseg"):
        script = module_file(words[words.index("-m") + 1])
        faults += [] if script.is_file() else [f"{script.relative_to(ROOT)} does not exist"]
    if script is not None and script.is_file():
        known = script.read_text() + "".join(file.read_text() for file in source_files("mmovseg", "projects"))
        start = words.index("-m") if "-m" in words else 0  # what stands before it belongs to torchrun
        options = [word.split("=")[0] for word in words[start:] if word.startswith("--") and word != "--"]
        faults += [f"{script.name} has no option {name}" for name in options if f'"{name}"' not in known]
    return faults


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "CONTRIBUTING.md",
        "MODEL_ZOO.md",
        "datasets/README.md",
        "projects/CMU/README.md",
        "projects/CoDeMAE/README.md",
        "projects/CrossEarthSAR/README.md",
    ]
    + [f"docs/{name}.md" for name in ("floods", "model", "own_data", "robustness", "scenes", "speed")],
)
def test_documented_commands_exist(name):
    if not (ROOT / name).is_file():
        pytest.skip(f"{name} is not written yet")
    commands = shell_commands((ROOT / name).read_text(encoding="utf-8"))
    assert {command: faults for command in commands if (faults := find_command_faults(command))} == {}


def test_the_command_check_sees_faults():
    text = "```bash\n# a comment\nmake nothing\npython tools/install_detectron2.py \\\n    --chekc\nmake test\n```\n"
    first, second, third = shell_commands(text)
    assert find_command_faults(first) == ["make has no target nothing"]
    assert find_command_faults(second) == ["install_detectron2.py has no option --chekc"]
    assert find_command_faults(third) == []
    assert find_command_faults("python tools/no_such.py") == ["tools/no_such.py does not exist"]
    module = "python -m mmovseg.projects.codemae.analysis"
    assert find_command_faults(f"{module}.spectrum --checkpoint a") == []
    assert find_command_faults(f"{module}.none") == ["mmovseg/projects/codemae/analysis/none.py does not exist"]
    assert find_command_faults("torchrun --nproc-per-node 2 -m mmovseg.doctor --jsn") == [
        "doctor.py has no option --jsn"
    ]
    assert find_command_faults("OMP_NUM_THREADS=1 python -m mmovseg.doctor --json") == []


def test_importing_mmovseg_is_light():
    code = "import sys, mmovseg; print(mmovseg.__version__, sorted({'torch', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.fullmatch(r"\d+\.\d+\.\d+\S* \[\]", done.stdout.strip())
