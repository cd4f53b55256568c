"""Runs in place of pip: `fake_pip.py FOLDER MODE download … --log=… --dest=… REQUIREMENT`.

FOLDER has the wheel to deliver, if any; each run appends a line to its file `calls`. MODE is
`whole`, `damaged` (one wrong byte), `hangs` (writes half of the wheel, starts a process and never
ends), `waits` (until there is a file `go`), or `says` (copies the file `words` into the log, and
fails).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path


def main(folder: Path, mode: str, arguments: list[str]) -> int:
    options = dict(a[2:].split("=", 1) for a in arguments if a.startswith("--") and "=" in a)
    with (folder / "calls").open("a") as calls:
        calls.write(f"{os.getpid()} {arguments[-1]}\n")
    if mode == "says":
        Path(options["log"]).write_text((folder / "words").read_text())
        return 1
    (wheel,) = folder.glob("*.whl")
    body = wheel.read_bytes()
    part = Path(os.environ["TMPDIR"], "unpack", wheel.name)
    part.parent.mkdir()
    part.write_bytes(body[: len(body) // 2])
    if mode == "hangs":
        child = subprocess.Popen(["sleep", "600"])
        (folder / "child").write_text(str(child.pid))
        child.wait()
    while mode == "waits" and not (folder / "go").exists():
        time.sleep(0.02)
    place = Path(options["dest"], wheel.name)
    place.parent.mkdir()
    place.write_bytes(body[:-1] + b"?" if mode == "damaged" else body)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
