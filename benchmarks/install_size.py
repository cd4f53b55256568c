"""List what an installation of quantchat downloads, by the sizes that the package index states.

`python benchmarks/install_size.py` resolves the dependencies of `pyproject.toml` with `uv lock`
(which must be on PATH; nothing is downloaded), adds up the files that pip would take on Linux
x86_64, and writes `benchmarks/results/install_size.json`. `--table` prints the table of the
documentation. The index does not have the torch build for CPUs, so `--cpu-torch` names a file with
this wheel, whose size counts.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, cast

from packaging.markers import Marker, default_environment
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename
from session import HERE, keep, kept

from quantchat.profile.toml_text import parse

PYTHON = (3, 12)
MBIT_S = 100
"""Speed of the connection, in Mbit/s, for which the table states times."""
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in range(35, 4, -1)]
PLATFORMS += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"]
CUDA = ("nvidia-", "cuda-", "triton")
"""How the names of packages begin that only torch's build for CUDA requires."""


def locked() -> dict[str, Any]:
    """Resolve the project's dependencies in a copy of its `pyproject.toml`; return the lock."""
    with tempfile.TemporaryDirectory() as folder:
        root = HERE.parent
        for name in ("pyproject.toml", "README.md", "LICENSE", "tui/quantchat/__init__.py"):
            copy = Path(folder) / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / name, copy)
        subprocess.run(["uv", "lock", "--quiet"], cwd=folder, check=True)
        return parse((Path(folder) / "uv.lock").read_text(encoding="utf-8"))


def installed(lock: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the packages of `lock` that installing quantchat without extras installs too.

    This includes the extras that these packages require of one another.
    """
    version = ".".join(map(str, PYTHON))
    environment: dict[str, str | AbstractSet[str]] = {
        **cast("dict[str, str]", default_environment()),
        "python_version": version,
        "python_full_version": f"{version}.0",
        "sys_platform": "linux",
        "platform_machine": "x86_64",
        "platform_system": "Linux",
    }

    def here(markers: Iterable[str]) -> bool:
        return any(Marker(marker).evaluate(environment) for marker in markers)

    packages: dict[str, list[dict[str, Any]]] = {}
    for package in lock["package"]:
        if here(package.get("resolution-markers", ["python_version > '3'"])):
            packages.setdefault(package["name"], []).append(package)
    found: dict[str, dict[str, Any]] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [("quantchat", "")]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        (package,) = packages[name]
        found[name] = package
        wanted = package.get("optional-dependencies", {}).get(extra, ())
        for needed in wanted if extra else package.get("dependencies", ()):
            if "marker" not in needed or here([needed["marker"]]):
                waiting += [(needed["name"], one) for one in ("", *needed.get("extra", ()))]
    del found["quantchat"]
    return list(found.values())


def size(package: dict[str, Any]) -> int:
    """Return the bytes of the wheel that pip prefers, or of the source distribution."""
    tags: list[Tag] = [
        *cpython_tags(PYTHON, platforms=PLATFORMS),
        *compatible_tags(PYTHON, platforms=PLATFORMS),
    ]
    fitting = [
        (min(tags.index(tag) for tag in those), wheel["size"])
        for wheel in package.get("wheels", ())
        if (those := parse_wheel_filename(wheel["url"].rpartition("/")[2])[3] & set(tags))
    ]
    return int(min(fitting)[1] if fitting else package["sdist"]["size"])


def table(result: dict[str, Any]) -> str:
    """Return the saved result as Markdown, with the time that each download takes."""
    mb = result["mb"]
    cuda = mb["torch"] + mb["cuda"]
    rows = [
        ("torch for CUDA, Triton and NVIDIA's libraries", cuda),
        ("torch for CPUs", mb["cpu_torch"]),
        ("everything else", mb["other"]),
        ("together, for CUDA", cuda + mb["other"]),
        ("together, for CPUs", mb["cpu_torch"] + mb["other"]),
    ]
    lines = [f"| download | MB | minutes at {MBIT_S} Mbit/s |", "| --- | --: | --: |"]
    lines += [f"| {name} | {value:,} | {value * 8 / MBIT_S / 60:.1f} |" for name, value in rows]
    return "\n".join(lines)


def main() -> None:
    """Resolve and save, or print the saved table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--cpu-torch", type=Path, metavar="WHEEL", help="torch's wheel for CPUs")
    given = parser.parse_args()
    if not given.table and given.cpu_torch is None:
        parser.error("--cpu-torch WHEEL is missing")
    if given.table:
        print(table(kept("install_size")))
        return
    packages = {package["name"]: package for package in installed(locked())}
    sizes = {name: size(package) for name, package in packages.items()}
    cuda = {name for name in sizes if name.startswith(CUDA)} - {"nvidia-ml-py"}
    mb = {
        "torch": sizes["torch"],
        "cpu_torch": given.cpu_torch.stat().st_size,
        "cuda": sum(sizes[name] for name in cuda),
        "other": sum(value for name, value in sizes.items() if name not in cuda | {"torch"}),
    }
    result = {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "command": f"python benchmarks/install_size.py --cpu-torch {given.cpu_torch.name}",
        "for": f"Python {PYTHON[0]}.{PYTHON[1]}, Linux x86_64",
        "versions": {name: packages[name]["version"] for name in ("torch", "gptqmodel")},
        "packages": len(sizes),
        "mb": {name: round(value / 1e6) for name, value in mb.items()},
    }
    keep("install_size", result)
    print(table(result))


if __name__ == "__main__":
    main()
