"""Packaging of mmovseg: the package, its sibling projects and the configs in one wheel.

Three folders of the checkout become one package: `mmovseg/` itself, `configs/` as `mmovseg.configs`, and for every
`projects/<Folder>/<package>` the package as `mmovseg.projects.<package>`, with the configs beside it in
`mmovseg/projects/<Folder>/configs`. `mmovseg.projects` makes the same names work in a bare checkout.

detectron2 is no declared dependency, because the package index has none under that name: run
`python tools/install_detectron2.py` or build it from its upstream sources.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def read_version() -> str:
    """The one place of the version is `mmovseg/__init__.py`; it is read without importing the package."""
    found = re.search(r'^__version__ = "(.+)"$', (ROOT / "mmovseg" / "__init__.py").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def read_requirements(name: str) -> list[str]:
    """The requirements of one file in `requirements/`, without comments."""
    lines = [line.split("#")[0].strip() for line in (ROOT / "requirements" / name).read_text().splitlines()]
    return [line for line in lines if line]


def requirement_of(package: str) -> list[str]:
    """The line of an optional package, which the tests need as well."""
    return [line for line in read_requirements("dev.in") if line.startswith(package)]


def map_packages() -> dict[str, str]:
    """Every package of the wheel and its folder in the checkout."""
    folders = {"mmovseg": "mmovseg"}
    folders |= {f"mmovseg.{name}": f"mmovseg/{name.replace('.', '/')}" for name in find_packages("mmovseg")}
    if (ROOT / "configs").is_dir():
        folders["mmovseg.configs"] = "configs"
    for project in sorted((ROOT / "projects").iterdir()):
        for name in find_packages(str(project)):
            folders[f"mmovseg.projects.{name}"] = f"projects/{project.name}/{name.replace('.', '/')}"
        if (project / "configs").is_dir():
            folders[f"mmovseg.projects.{project.name}.configs"] = f"projects/{project.name}/configs"
    return folders


PACKAGES = map_packages()
DATA = ["py.typed", "**/*.json", "**/*.safetensors", "**/*.txt", "**/*.gz", "**/*.yaml", "**/*.csv"]
CONFIGS = [name for name in PACKAGES if name.endswith(".configs")]
PROJECTS = [name for name in PACKAGES if name.startswith("mmovseg.projects.") and name not in CONFIGS]

setup(
    name="mmovseg",
    version=read_version(),
    description="Open-vocabulary segmentation of optical and SAR imagery, through clouds, on Detectron2",
    long_description=(ROOT / "README.md").read_text() if (ROOT / "README.md").is_file() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=list(PACKAGES),
    package_dir=PACKAGES,
    package_data={
        "mmovseg": DATA,
        **dict.fromkeys(PROJECTS, ["**/*.json", "**/*.html"]),
        **dict.fromkeys(CONFIGS, ["**/*.py", "**/*.yaml", "**/*.json"]),
    },
    install_requires=read_requirements("base.in"),
    entry_points={"console_scripts": ["mmovseg = mmovseg.cli:main"]},
    extras_require={
        "dev": read_requirements("dev.in"),
        # For tools/benchmark.py --energy; not in requirements/, since neither tests nor demo need it. 3.3 is the first
        # that takes `output_methods` and a carbon intensity.
        "energy": ["codecarbon>=3.3,<4"],
        "clouds": requirement_of("satellite-cloud-generator"),
        "web": requirement_of("gradio"),
        "analysis": requirement_of("umap-learn"),
        # For tools/search_images.py above a million images; not in requirements/, since fewer are compared exactly.
        # 1.9 is the first that takes NumPy 2.
        "search": ["faiss-cpu>=1.9,<2"],
    },
    zip_safe=False,
)
