"""The doctor's view of the system: folders, the terminal, versions, kernels already compiled."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from quantchat.features.doctor import system_info
from quantchat.features.doctor.system_info import folder_state, folders, terminal
from quantchat.wire.jobs import COMPILES, READY, UNUSABLE, BuildTools
from quantchat.worker.loaders.gptq_probe import _compiled

TOOLS = BuildTools(
    nvcc="/cuda/bin/nvcc", nvcc_release="12.8", lacking="", cxx="", ninja="", triton=""
)


pytestmark = pytest.mark.usefixtures("own_folders")


def test_folders_and_what_they_hold(tmp_path: Path) -> None:
    hub = tmp_path / "hf" / "hub"
    (hub / "blobs").mkdir(parents=True)
    (hub / "blobs" / "one").write_bytes(bytes(1000))
    (hub / "snapshot").symlink_to(hub / "blobs" / "one")
    os.link(hub / "blobs" / "one", hub / "again")
    listed = {folder.name: folder for folder in folders()}
    assert list(listed) == ["checkpoints", "snapshots", "logs", "profiles", "Hugging Face hub"]
    assert listed["Hugging Face hub"].path == str(hub)
    size = listed["Hugging Face hub"].size
    assert size is not None
    assert 1000 <= size < 2000, "a linked file counts once"
    assert not listed["snapshots"].exists
    assert listed["snapshots"].writable, "it can be made"
    assert all(folder.free for folder in listed.values())
    (tmp_path / "file").touch()
    blocked = folder_state("logs", tmp_path / "file" / "below")
    assert not blocked.writable


@pytest.mark.parametrize(
    ("environ", "colours", "multiplexer", "ssh"),
    [
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, "true colour", "", False),
        ({"TERM": "tmux-256color", "TMUX": "/tmp/t,1,0"}, "256", "tmux", False),
        ({"TERM": "screen", "STY": "1.a", "SSH_TTY": "/dev/pts/1"}, "few", "screen", True),
        ({"TERM": "xterm", "COLORTERM": "24bit", "NO_COLOR": "1"}, "none", "", False),
        ({"TERM": "dumb", "SSH_CONNECTION": "a b c d"}, "none", "", True),
        ({}, "none", "", False),
    ],
)
def test_the_terminal(environ: dict[str, str], colours: str, multiplexer: str, ssh: bool) -> None:
    one = terminal(environ)
    assert (one.colours, one.multiplexer, one.ssh) == (colours, multiplexer, ssh)
    assert one.term == environ.get("TERM", "")


def test_the_versions_are_those_of_the_installed_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "gguf":
            raise importlib.metadata.PackageNotFoundError(name)
        return f"{name} 1"

    monkeypatch.setattr(importlib.metadata, "version", version)
    versions = system_info.installed_versions()
    assert versions["gguf"] == ""
    assert versions["torch"] == "torch 1"
    assert system_info.extras() == {
        "servers": "openai openai 1",
        "adapters": "peft peft 1",
        "eval": "lm_eval lm_eval 1",
        "cuda-build": "nvidia-cuda-nvcc nvidia-cuda-nvcc 1",
    }


class Extension:
    name = "ops"

    def __init__(self, root: Path) -> None:
        self._root = root

    def base_build_root(self) -> Path:
        return self._root


@pytest.mark.parametrize(
    ("built", "lacking", "name", "state", "detail"),
    [
        (True, "", "machete", READY, "compiled before"),
        (True, "there is no nvcc", "machete", READY, "compiled before"),
        (False, "", "exllamav2", COMPILES, "with nvcc 12.8"),
        (False, "", "machete", COMPILES, "CUTLASS from the network"),
        (False, "there is no nvcc", "exllamav2", UNUSABLE, "compiled, and there is no nvcc"),
    ],
)
def test_what_must_be_compiled(
    built: bool,
    lacking: str,
    name: str,
    state: str,
    detail: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "0f3a").mkdir()
    (tmp_path / "0f3a" / ("ops.so" if built else "ops.o")).touch()
    spec = SimpleNamespace(resolve=lambda: Extension(tmp_path))
    module = SimpleNamespace(_EXTENSION_SPECS_BY_NAME={name: spec})
    monkeypatch.setitem(sys.modules, "gptqmodel", SimpleNamespace(extension=module))
    found_state, found_detail = _compiled(name, replace(TOOLS, lacking=lacking))
    assert found_state == state
    assert detail in found_detail
