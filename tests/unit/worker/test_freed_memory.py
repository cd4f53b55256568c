"""Memory that a job has freed is returned to the system."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import re, sys
from quantchat.worker.jobs.job_env import return_freed_memory

def own_mib():
    with open("/proc/self/status") as status:
        return int(re.search(r"RssAnon:\\s+(\\d+)", status.read())[1]) / 1024

if sys.argv[1] == "back":
    return_freed_memory()
before = own_mib()
largest = bytearray(30 * 2**20)
del largest  # glibc's limit is as large from here on
blocks = [(bytearray(b"x") * (4 * 2**20), bytearray(b"x") * 2**18) for _ in range(60)]
small = [one for _, one in blocks]  # still in use, between what is freed
del blocks
print(own_mib() - before - len(small) / 4)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that keeps it")
def test_what_is_freed_between_blocks_in_use_goes_back() -> None:
    def kept_mib(how: str) -> float:
        command = [sys.executable, "-c", SCRIPT, how]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        return float(run.stdout)

    assert kept_mib("by itself") > 150  # of 240 MiB: else there is nothing to be mended
    assert kept_mib("back") < 20
