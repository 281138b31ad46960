"""The sibling projects under one name: `mmovseg.projects.<package>` is `projects/<Folder>/<package>` of the checkout.

In a wheel the packages lie inside this one and nothing has to be done. In a checkout, with or without
`pip install --editable`, every project folder that holds a package is added to this package's search path, so a new
project is found without installing again. `mmovseg` itself never imports a project.
"""

from __future__ import annotations

from pathlib import Path


def find_project_folders(root: Path) -> list[Path]:
    """The folders `<root>/projects/<Folder>` that hold a package; empty if `root` is no checkout of mmovseg."""
    if not (root / "setup.py").is_file():  # an installed copy: a folder `projects` beside it is somebody else's
        return []
    return sorted({init.parent.parent for init in root.glob("projects/*/*/__init__.py")})


__path__ += [str(folder) for folder in find_project_folders(Path(__file__).resolve().parents[2])]
