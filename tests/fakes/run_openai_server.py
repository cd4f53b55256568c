"""Runs the loopback server of `openai_server` as a program, as a user's command starts a server.

Arguments: the port and the behaviour. `ok`; `endless`; `slow`: not ready at first; `dies`: exits
with status 3 and a message; `fails`: as vLLM does, with the reason some lines before the last;
`never`: never listens; `leaves`: first starts a process, and prints its pid. It prints where its
PATH begins.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

from fakes.openai_server import FakeServer


def say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def main(port: int, behaviour: str) -> int:
    say(f"PATH begins with {os.environ['PATH'].split(os.pathsep)[0]}")
    say(f"the key is {os.environ.get('CANARY_API_KEY')}")
    if behaviour == "dies":
        say("no such model: tiny")
        return 3
    if behaviour == "fails":
        say("(EngineCore pid=7) ERROR 11-28 17:38:58 [core.py:15] ValueError: no room for the KV")
        say("RuntimeError: Engine core initialization failed. See root cause above.")
        say("  warnings.warn('resource_tracker: There appear to be %d '")
        return 1
    if behaviour == "never":
        time.sleep(600)
    if behaviour == "slow":
        say("(Worker pid=7) INFO 11-28 17:22:01 [weight_utils.py:11] Loading weights")
        time.sleep(0.5)
    if behaviour == "leaves":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        say(f"child {child.pid}")
    with FakeServer(port) as server:
        server.behaviour = "endless" if behaviour == "endless" else "ok"
        server.serve_forever(poll_interval=0.01)
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2]))
