"""`quantchat completion`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from quantchat.cli import main


@pytest.mark.parametrize(
    ("shell", "file"),
    [
        ("bash", "data/bash-completion/completions/quantchat"),
        ("zsh", "data/zsh/site-functions/_quantchat"),
        ("fish", "config/fish/completions/quantchat.fish"),
    ],
)
def test_it_is_installed_where_the_shell_looks(
    shell: str,
    file: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SHELL", f"/bin/{shell}")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert main(["completion"]) == 0
    script = capsys.readouterr().out
    assert "_QUANTCHAT_COMPLETE" in script and f"{shell}_complete" in script
    assert main(["completion", "--install"]) == 0
    assert (tmp_path / file).read_text() == script.rstrip("\n")
    assert f"wrote {tmp_path / file}; {shell} reads it" in capsys.readouterr().out


def test_another_shell_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    assert main(["completion"]) == 2
    assert "no completion for tcsh (name one of bash, zsh, fish)" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_and_profiles(tmp_path: Path) -> None:
    program = tmp_path / "quantchat"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m quantchat "$@"\n')
    program.chmod(0o755)
    asked = (
        "source <(quantchat completion bash)\n"
        "COMP_WORDS=(quantchat $1); COMP_CWORD=1\n"
        "_quantchat_completion quantchat; echo ${COMPREPLY[@]}\n"
    )
    found = {
        word: subprocess.run(
            ["bash", "-c", asked, "bash", word],
            env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for word in ("snap", "nf4")
    }
    assert found["snap"] == ["snapshots"]
    assert "nf4-vs-bf16" in found["nf4"]
