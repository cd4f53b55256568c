"""A virtual environment with quantchat and one of its extras, built from what is installed here.

Nothing is downloaded: the packages of the extra and their dependencies are linked into the
environment. No other package (such as those of `[dev]`) is in it.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import quantchat

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SOURCE = Path(quantchat.__file__).parents[1]


class NotInstalled(Exception):
    """A package that the environment needs is not installed here."""


def own_environment(folder: Path, extra: str = "") -> Path:
    """Create the environment in `folder`, and return its interpreter. Raises NotInstalled."""
    command = [sys.executable, "-m", "venv", "--without-pip", str(folder)]
    subprocess.run(command, check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    for distribution in _closure(extra):
        files = distribution.files
        if files is None:
            raise NotInstalled(f"{distribution.name} does not say which files it has")
        # Scripts lie above the packages. One folder may be that of several distributions.
        for name in {file.parts[0] for file in files} - {"..", "__pycache__"}:
            if not (packages / name).exists():
                (packages / name).symlink_to(Path(str(distribution.locate_file(name))).resolve())
    (packages / "quantchat.pth").write_text(str(SOURCE))
    return folder / "bin" / "python"


def _closure(extra: str) -> list[importlib.metadata.Distribution]:
    """Return the distributions that quantchat with `extra` requires, directly and indirectly."""
    project: dict[str, Any] = tomllib.loads((SOURCE.parent / "pyproject.toml").read_text())
    project = project["project"]
    wanted = [*project["dependencies"]]
    if extra:
        wanted += project["optional-dependencies"][extra]
    found: dict[tuple[str, str], importlib.metadata.Distribution] = {}
    waiting = [(Requirement(one), "") for one in wanted]
    while waiting:
        requirement, of_extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": of_extra}):
            continue
        for its_extra in ("", *sorted(requirement.extras)):
            key = canonicalize_name(requirement.name), its_extra
            if key in found:
                continue
            try:
                found[key] = importlib.metadata.distribution(requirement.name)
            except importlib.metadata.PackageNotFoundError as error:
                raise NotInstalled(f"{requirement.name} is not installed") from error
            if not requirement.specifier.contains(found[key].version, prereleases=True):
                raise NotInstalled(f"{requirement} is not what is installed")
            waiting += [(Requirement(one), its_extra) for one in found[key].requires or ()]
    return list({one.name: one for one in found.values()}.values())
