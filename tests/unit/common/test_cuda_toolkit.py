"""Finding the CUDA toolkit that matches torch's CUDA version, in every place."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import SimpleNamespace

import pytest

from quantchat.common import cuda_toolkit
from quantchat.common.cuda_toolkit import (
    Toolkit,
    build_problem,
    choose,
    how_to_install,
    toolkits,
    use,
)


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def toolkit(home: Path, release: str, *, headers: bool = True) -> Path:
    """A folder that looks like a CUDA toolkit; its nvcc answers as NVIDIA's does."""
    script(
        home / "bin" / "nvcc",
        f'case "$1" in\n'
        f'--version) echo "Cuda compilation tools, release {release}, V{release}.88" ;;\n'
        f'--dryrun) echo "#$ _HERE_={home}/bin" >&2 ;;\n'
        f"esac",
    )
    if headers:
        (home / "include").mkdir()
        (home / "include" / "cuda_runtime_api.h").touch()
    return home


class Machine:
    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.local = root / "local"
        self.site = root / "site-packages"
        self.path = root / "path"
        for folder in (self.local, self.site, self.path):
            folder.mkdir()
        for tool in ("c++", "ninja"):
            script(self.path / tool, "")
        monkeypatch.setattr(cuda_toolkit, "_SYSTEM", self.local)
        monkeypatch.setattr(sysconfig, "get_path", lambda name: str(self.site))
        monkeypatch.setenv("PATH", str(self.path))
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(root / "compiled"))
        for name in ("CUDA_HOME", "CUDA_PATH", "CXX", "LIBRARY_PATH"):
            monkeypatch.setenv(name, "")
            monkeypatch.delenv(name)
        monkeypatch.delitem(sys.modules, "torch.utils.cpp_extension", raising=False)

    def wheel(self, release: str = "13.0") -> Path:
        """As pip leaves NVIDIA's compiler: without a `lib64` and without `libcudart.so`."""
        home = toolkit(self.site / "nvidia" / f"cu{release.partition('.')[0]}", release)
        (home / "lib").mkdir()
        (home / "lib" / "libcudart.so.13").touch()
        return home


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_a_machine_without_nvcc(machine: Machine) -> None:
    assert list(toolkits()) == []
    assert build_problem("13.0") == "there is no nvcc"
    assert use("13.0") is None
    assert "CUDA_HOME" not in os.environ


def test_the_compiler_of_the_wheels_is_found_and_can_link(machine: Machine) -> None:
    home = machine.wheel()
    assert build_problem("13.0") == ""
    assert use("13.0") == Toolkit(home, "13.0")
    assert os.environ["CUDA_HOME"] == str(home)
    folder = Path(os.environ["LIBRARY_PATH"])
    assert (folder / "libcudart.so").resolve() == home / "lib" / "libcudart.so.13"


def test_a_second_worker_and_another_environment_find_their_link(machine: Machine) -> None:
    machine.wheel()
    use("13.0")
    folder = Path(os.environ.pop("LIBRARY_PATH"))
    del os.environ["CUDA_HOME"]
    (folder / "libcudart.so").unlink()
    (folder / "libcudart.so").symlink_to("/gone/libcudart.so.12")
    os.environ["LIBRARY_PATH"] = "/mine"
    for _ in range(2):
        use("13.0")
        assert os.environ["LIBRARY_PATH"] == f"{folder}{os.pathsep}/mine"
    assert (folder / "libcudart.so").exists()


def test_a_toolkit_of_another_major_version_is_passed_over(machine: Machine) -> None:
    old = toolkit(machine.local / "cuda-12.4", "12.4")
    (machine.local / "cuda").symlink_to(old)
    assert choose("13.0") is None
    problem = build_problem("13.0")
    assert problem.startswith("torch is built for CUDA 13.0, and there is only nvcc 12.4 in ")
    assert problem.count("nvcc") == 1  # the link and what it leads to are one
    home = machine.wheel()
    assert choose("13.0") == Toolkit(home, "13.0")
    new = toolkit(machine.local / "cuda-13.2", "13.2")
    assert choose("13.0") == Toolkit(new, "13.2")  # the machine's own first
    assert choose("12.6") == Toolkit(machine.local / "cuda", "12.4")


def test_behind_a_wrapper_lies_the_toolkit(machine: Machine) -> None:
    real = toolkit(machine.local / "elsewhere" / "cuda-13.0", "13.0")
    script(machine.path / "nvcc", f'exec {real}/bin/nvcc "$@"')
    assert choose("13.0") == Toolkit(real, "13.0")


def test_an_nvcc_without_headers_is_told(machine: Machine) -> None:
    bare = toolkit(machine.local / "bare", "13.0", headers=False)
    (machine.path / "nvcc").symlink_to(bare / "bin" / "nvcc")
    assert (
        build_problem("13.0") == f"{machine.path}/nvcc is not part of a CUDA toolkit with headers"
    )


def test_what_the_user_names_is_the_only_one(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.wheel()
    mine = toolkit(machine.local / "mine", "12.8")
    monkeypatch.setenv("CUDA_HOME", str(mine))
    assert list(toolkits()) == [Toolkit(mine, "12.8")]
    assert "there is only nvcc 12.8" in build_problem("13.0")
    assert use("13.0") is None
    assert os.environ["CUDA_HOME"] == str(mine)


def test_without_the_other_tools_nothing_is_compiled(machine: Machine) -> None:
    machine.wheel()
    (machine.path / "ninja").unlink()
    assert build_problem("13.0") == "there is no ninja"
    (machine.path / "c++").unlink()
    assert build_problem("13.0") == "there is no C++ compiler and no ninja"


def test_an_nvcc_that_does_not_run_is_none(machine: Machine) -> None:
    home = toolkit(machine.local / "cuda", "13.0")
    script(home / "bin" / "nvcc", "exit 1")
    assert list(toolkits()) == []


def test_a_torch_that_has_looked_already_is_told_too(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    extension = SimpleNamespace(CUDA_HOME=None)
    monkeypatch.setitem(sys.modules, "torch.utils.cpp_extension", extension)
    home = machine.wheel()
    use("13.0")
    assert home / "bin" == Path(str(extension.CUDA_HOME)) / "bin"


def test_the_linker_takes_the_link(machine: Machine, tmp_path: Path) -> None:
    """With the real linker, if there is one: without LIBRARY_PATH `-lcudart` is not found."""
    compiler = "/usr/bin/cc"
    if not os.access(compiler, os.X_OK):
        pytest.skip("no C compiler")
    home = machine.wheel()
    source = script(tmp_path / "empty.c", "").with_suffix(".c")
    source.write_text("void nothing(void) {}\n")
    environment = {"PATH": "/usr/bin:/bin"}
    library = home / "lib" / "libcudart.so.13"
    build = [compiler, "-shared", "-fPIC", str(source)]
    subprocess.run([*build, "-o", str(library)], env=environment, check=True)
    link = [*build, "-o", str(tmp_path / "out.so"), f"-L{home}/lib", "-lcudart"]
    assert subprocess.run(link, env=environment, capture_output=True, check=False).returncode
    use("13.0")
    environment["LIBRARY_PATH"] = os.environ["LIBRARY_PATH"]
    subprocess.run(link, env=environment, check=True)


@pytest.mark.parametrize(
    ("cuda", "told"),
    [
        ("13.0", "python -m pip install 'quantchat[cuda-build]'"),
        (None, "python -m pip install 'quantchat[cuda-build]'"),
        ("12.8", "install NVIDIA's CUDA toolkit 12"),
    ],
)
def test_the_extra_is_named_only_where_torch_takes_its_version(cuda: str | None, told: str) -> None:
    assert how_to_install(cuda) == told
