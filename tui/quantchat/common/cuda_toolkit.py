"""Finds a CUDA toolkit that can compile kernels: nvcc of torch's CUDA major version, with headers.

GPTQModel compiles Marlin and ExLlamaV2 on first use, through torch's `cpp_extension`. That module
assumes that the first `nvcc` on PATH belongs to a suitable CUDA toolkit. This fails in two cases:
the `nvcc` is a wrapper in /usr/local/bin, beside which there are no headers; or the toolkit has
another major version, which torch refuses. torch also does not look into site-packages, where
`pip install 'quantchat[cuda-build]'` puts NVIDIA's compiler. So this module chooses the toolkit.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_MAJOR = "13"
"""CUDA's major version of the compiler that the extra `cuda-build` installs."""


def how_to_install(torch_cuda: str | None) -> str:
    """Return how to install NVIDIA's compiler for a torch of CUDA `torch_cuda`, e.g. `12.8`.

    If the version is not known (None or empty), the extra `cuda-build` is named.
    """
    major = (torch_cuda or _MAJOR).partition(".")[0]
    if major == _MAJOR:
        return "python -m pip install 'quantchat[cuda-build]'"
    return f"install NVIDIA's CUDA toolkit {major}"


_SYSTEM = Path("/usr/local")
_HEADER = Path("include", "cuda_runtime_api.h")
_RELEASE = re.compile(r"release (\d+\.\d+)")
_HERE = re.compile(r"^#\$ _HERE_=(.+)$", re.M)


@dataclass(frozen=True)
class Toolkit:
    """A CUDA toolkit: `home` has bin/nvcc and the headers; `release` is nvcc's, e.g. `13.0`."""

    home: Path
    release: str

    @property
    def nvcc(self) -> Path:
        """Path of its compiler."""
        return self.home / "bin" / "nvcc"

    def fits(self, torch_cuda: str) -> bool:
        """Return whether torch accepts this toolkit: only with the major version of its CUDA."""
        return self.release.partition(".")[0] == torch_cuda.partition(".")[0]


def toolkits() -> Iterator[Toolkit]:
    """Yield each installed toolkit, the preferred one first.

    If the environment variable CUDA_HOME or CUDA_PATH is set, yield only the toolkit that it names.
    """
    named = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    seen: set[Path] = set()
    for home in [Path(named)] if named else _homes():
        nvcc = home / "bin" / "nvcc"
        if nvcc.resolve() in seen or not (home / _HEADER).is_file():
            continue
        seen.add(nvcc.resolve())
        if release := _release(nvcc):
            yield Toolkit(home, release)


def choose(torch_cuda: str) -> Toolkit | None:
    """Return the first toolkit that fits a torch of CUDA `torch_cuda`; None if none does."""
    return next((one for one in toolkits() if one.fits(torch_cuda)), None)


def build_problem(torch_cuda: str) -> str:
    """Return why no kernel can be compiled for a torch of CUDA `torch_cuda`; empty if one can."""
    if choose(torch_cuda) is None:
        others = [f"nvcc {one.release} in {one.home}" for one in toolkits()]
        if others:
            return f"torch is built for CUDA {torch_cuda}, and there is only {', '.join(others)}"
        if path := shutil.which("nvcc"):
            return f"{path} is not part of a CUDA toolkit with headers"
        return "there is no nvcc"
    missing = [
        name
        for name, command in (("C++ compiler", os.environ.get("CXX", "c++")), ("ninja", "ninja"))
        if not shutil.which(command)
    ]
    return f"there is no {' and no '.join(missing)}" if missing else ""


def use(torch_cuda: str) -> Toolkit | None:
    """Make torch compile with the toolkit of `choose` and return it; None if there is none.

    Best called before `torch.utils.cpp_extension` is imported. If that module is already imported,
    its CUDA_HOME is replaced.
    """
    toolkit = choose(torch_cuda)
    if toolkit is None:
        return None
    os.environ["CUDA_HOME"] = str(toolkit.home)
    extension = sys.modules.get("torch.utils.cpp_extension")
    if extension is not None:
        extension.CUDA_HOME = str(toolkit.home)  # type: ignore[attr-defined]
    _link_runtime(toolkit.home)
    return toolkit


def _homes() -> Iterator[Path]:
    if path := shutil.which("nvcc"):
        yield _home_of(Path(path))
    yield _SYSTEM / "cuda"
    yield from sorted(_SYSTEM.glob("cuda-*"), reverse=True)
    for folder in dict.fromkeys(map(sysconfig.get_path, ("purelib", "platlib"))):
        yield from sorted(Path(folder, "nvidia").glob("cu[0-9]*"), reverse=True)


def _home_of(nvcc: Path) -> Path:
    """Return the folder of the toolkit of `nvcc`.

    If the headers are not beside it, `nvcc` is a link or a wrapper; its output names the folder.
    """
    if (nvcc.parent.parent / _HEADER).is_file():
        return nvcc.parent.parent
    here = _HERE.search(_output(str(nvcc), "--dryrun", "-c", os.devnull))
    return Path(here[1]).parent if here else nvcc.parent.parent


def _release(nvcc: Path) -> str:
    found = _RELEASE.search(_output(str(nvcc), "--version"))
    return found[1] if found else ""


def _output(*command: str) -> str:
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return run.stdout + run.stderr


def _link_runtime(home: Path) -> None:
    """Make the linker find CUDA's runtime library, which torch links with `-lcudart`.

    The linker looks for `libcudart.so`. NVIDIA's wheel has only a file with a version in its name,
    such as `libcudart.so.13`. So this function creates a symbolic link `libcudart.so` to that file,
    and adds the link's folder to LIBRARY_PATH, which gcc reads.
    """
    libraries = [home / name for name in ("lib64", "lib")]
    if any((folder / "libcudart.so").exists() for folder in libraries):
        return
    versioned = next((one for folder in libraries for one in folder.glob("libcudart.so.*")), None)
    if versioned is None:
        return
    cache = os.environ.get("TORCHINDUCTOR_CACHE_DIR")  # set in each worker
    folder = Path(cache or Path.home() / ".cache" / "quantchat" / "compiled") / "cuda-link"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    link = folder / "libcudart.so"
    with contextlib.suppress(FileExistsError):  # another worker has just created it
        if link.is_symlink() and link.readlink() != versioned:
            link.unlink(missing_ok=True)
        link.symlink_to(versioned)
    others = filter(None, os.environ.get("LIBRARY_PATH", "").split(os.pathsep))
    os.environ["LIBRARY_PATH"] = os.pathsep.join(dict.fromkeys((str(folder), *others)))
