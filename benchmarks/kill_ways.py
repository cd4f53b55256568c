"""The programs that benchmarks/kills.py starts, and the ways in which it ends them.

Each `Way` consists of two functions of a `Session`: one starts a program in a pseudo-terminal and
waits for a random moment, the other one ends it.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from fakes.mounts import fill, hung_share, small_disk
from fakes.openai_server import FakeServer, serving
from fakes.terminal import Terminal
from fakes.tiny_checkpoint import write_checkpoint
from quantchat import paths

STARTING_S = 12.0
"""If the demo is to be ended while variants are fetched, built, quantized or loaded: within this
time, in s, after its start."""
CHATTING_S = 4.0
"""A chat or a measurement is ended within this time, in s, after it has begun."""
QUANTIZING_S = 25.0
"""`quantize` is ended within this time, in s, after GPTQModel has begun to work."""
LOADING_S = 600.0
"""Time limit, in s, for loading and for everything else that is waited for."""
QUIT = "\x11\x11"
SAVE = "\x13"
PROMPT = "Count to twenty.\r"
READY, ANSWERING = "● ready", "▶ answering"
QUANTCHAT = (sys.executable, "-m", "quantchat")


@dataclass
class Session:
    """One run of a program, until it is ended."""

    folder: Path
    lot: random.Random
    """Chooses the random moments."""
    terminal: Terminal = field(init=False)
    doing: str = ""
    """What the program does when it is ended."""
    cache: Path | None = None
    """The program's cache folder; None means the user's."""
    server: FakeServer | None = None
    answered: bool = False
    """Whether there is something that an orderly end has to save."""
    surroundings: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    """The server and the mounted file systems, which are closed after the run."""

    @property
    def snapshots(self) -> Path:
        """The folder in which the program saves."""
        return self.folder / "snapshots"

    @property
    def model(self) -> Path:
        """The folder of the tiny model, for the programs that load one."""
        return self.folder / "model"

    def start(self, *command: str, mark: dict[str, str]) -> None:
        """Start `command` in a pseudo-terminal, with folders of its own.

        `mark` is an environment variable by which all its processes are found later.
        """
        own = {"QUANTCHAT_LOGS": str(self.folder / "logs"), "TMPDIR": str(self.folder / "tmp")}
        if self.cache:
            own["QUANTCHAT_CACHE"] = str(self.cache)
        self.terminal = Terminal(command, cwd=self.folder, env=mark | own)

    def use(self, seconds: float, *, typing: bool = False) -> None:
        """Read the screen for `seconds`; with `typing`, also send prompts and save."""
        until_s, typed = time.monotonic() + seconds, 1
        while time.monotonic() < until_s and self.terminal.process.poll() is None:
            self.terminal.read()
            self.answered = self.answered or ANSWERING in self.terminal.text
            if typing:
                self.type(PROMPT if typed % 4 == 0 else SAVE)
                typed += 1
                next_s = min(until_s, time.monotonic() + 0.2)
                while time.monotonic() < next_s:
                    self.terminal.read()

    def type(self, keys: str) -> None:
        """Press `keys`; nothing happens if the program has ended."""
        with contextlib.suppress(OSError):
            self.terminal.type(keys)

    def send(self, *numbers: signal.Signals) -> None:
        """Send the signals to the program, one right after the other."""
        for number in numbers:
            os.kill(self.terminal.process.pid, number)

    def workers(self) -> list[psutil.Process]:
        """Return the worker processes: each leads a process group of its own."""
        with contextlib.suppress(psutil.Error):
            children = psutil.Process(self.terminal.process.pid).children(recursive=True)
            return [child for child in children if os.getpgid(child.pid) == child.pid]
        return []


# ---------------------------------------------------------------- programs


def demo(session: Session, mark: dict[str, str]) -> None:
    """Run the demo with its real models until a random moment during its start or a chat."""
    lot = session.lot
    moments = ("chatting", "starting", "fetching", "quantizing")
    session.doing = lot.choices(moments, (40, 30, 15, 15))[0]
    if session.doing in ("fetching", "quantizing"):
        session.cache = session.folder / "cache"
    if session.doing == "quantizing":
        _without_quantized(session.folder / "cache")
    session.start(*QUANTCHAT, "demo", "--snapshots", str(session.snapshots), mark=mark)
    if session.doing == "chatting":
        session.terminal.wait_for_text(READY, most_s=LOADING_S)  # the other side may still load
        session.type(PROMPT)
        session.use(lot.uniform(0.05, CHATTING_S), typing=True)
    else:
        session.use(lot.uniform(0.05, STARTING_S))
        session.answered = False


def _without_quantized(cache: Path) -> None:
    """Fill `cache` with links to the user's checkpoints, except for the GPTQ ones."""
    for made in (paths.cache_dir() / "checkpoints").iterdir():
        if "-gptq-" in made.name or made.name.startswith("."):
            continue
        place = paths.private(cache / "checkpoints" / made.name)
        for file in made.rglob("*"):
            if file.is_file():
                linked = paths.private((place / file.relative_to(made)).parent) / file.name
                linked.hardlink_to(file)


def pair(session: Session, mark: dict[str, str]) -> None:
    """Chat with a tiny model and a server, until a random moment of the server's endless answer."""
    session.doing = "chatting"
    profile = _tiny_pair(session, "endless", max_new_tokens=100_000)
    session.start(*QUANTCHAT, profile, "--snapshots", str(session.snapshots), mark=mark)
    session.terminal.wait_for(
        lambda: session.terminal.text.count(READY) == 2, "two variants", LOADING_S
    )
    session.type(PROMPT)
    session.terminal.wait_for_text(ANSWERING, most_s=LOADING_S)
    session.use(session.lot.uniform(0.5, CHATTING_S))


def run(session: Session, mark: dict[str, str], *before: str) -> None:
    """Measure a tiny model and a server until a random moment after a complete round."""
    session.doing = "measuring"
    profile = _tiny_pair(session, "ok", max_new_tokens=200)
    words = ("run", profile, "--rounds", "10000", "--warmup", "0", "--prompt", "w1 w2", "--json")
    session.start(*before, *QUANTCHAT, *words, "--save", str(session.snapshots), mark=mark)
    session.terminal.wait_for(lambda: _measured(session) >= 3, "a round", LOADING_S)
    session.use(session.lot.uniform(0, CHATTING_S))
    session.answered = True


def run_without_stderr(session: Session, mark: dict[str, str]) -> None:
    """Measure with a closed standard error."""
    run(session, mark, "bash", "-c", 'exec "$@" 2>&-', "bash")


def _measured(session: Session) -> int:
    """Return how many answers the server was asked for, not counting warm-up (one token)."""
    assert session.server is not None
    return sum(request.get("max_tokens") != 1 for request in session.server.requests)


def _tiny_pair(session: Session, behaviour: str, max_new_tokens: int) -> str:
    session.server = session.surroundings.enter_context(serving())
    session.server.behaviour = behaviour
    write_checkpoint(session.model)
    profile = session.folder / "pair.toml"
    profile.write_text(
        f"""
name = "kills"
generation = {{ max_new_tokens = {max_new_tokens} }}
[[variants]]
label = "tiny"
engine = "transformers"
model = "{session.model}"
device = "cpu"
[[variants]]
label = "server"
engine = "openai"
model = "tiny"
base_url = "{session.server.url}"
""",
        encoding="utf-8",
    )
    return str(profile)


def quantize(session: Session, mark: dict[str, str]) -> None:
    """Quantize the demo's model until a random moment while GPTQModel works."""
    session.doing, session.cache = "GPTQModel", session.folder / "cache"
    _without_quantized(session.cache)
    words = ("quantize", "demo:smollm2-135m-instruct", "--no-perplexity")
    session.start(*QUANTCHAT, *words, mark=mark)
    began = session.cache / "checkpoints" / ".parts"
    session.terminal.wait_for(lambda: any(began.glob("*-gptq-*")), "quantizing", LOADING_S)
    session.use(session.lot.uniform(0, QUANTIZING_S))


# ---------------------------------------------------------------- ends


def signals(*numbers: signal.Signals) -> Callable[[Session], None]:
    """Return a function that ends a session by these signals, one right after the other."""
    return lambda session: session.send(*numbers)


def quit_by_key(session: Session) -> None:
    """Press ^Q twice: the second one quits without saving."""
    session.type(QUIT)


def close_terminal(session: Session) -> None:
    """Close the terminal's window."""
    session.terminal.hang_up()


def kill_a_worker(session: Session) -> None:
    """Kill one worker, then quit."""
    if workers := session.workers():
        session.lot.choice(workers).kill()
    session.type(QUIT)


def suspend_first(session: Session) -> None:
    """Suspend and continue the program, then quit."""
    session.send(signal.SIGSTOP)
    time.sleep(session.lot.uniform(0.1, 1.5))
    session.send(signal.SIGCONT)
    session.use(session.lot.uniform(0, 1.5))
    session.type(QUIT)


def _silence_workers(session: Session) -> None:
    for worker in session.workers():
        worker.suspend()


def terminate_with_silent_workers(session: Session) -> None:
    """Suspend the workers, so that they answer nothing, then send SIGTERM."""
    _silence_workers(session)
    session.send(signal.SIGTERM)


def interrupt_with_silent_workers(session: Session) -> None:
    """Suspend the workers, then press Ctrl+C twice.

    The first Ctrl+C asks the workers to stop, the second one kills them.
    """
    _silence_workers(session)
    session.use(session.lot.uniform(0, 1.0))
    session.type("\x03")
    session.use(session.lot.uniform(0.2, 1.0))
    session.type("\x03")


def fill_disk(session: Session) -> None:
    """Fill the disk with the snapshots' folder, then send SIGTERM."""
    session.surroundings.enter_context(small_disk(session.snapshots))
    fill(session.snapshots)
    session.send(signal.SIGTERM)


def _hang(session: Session, place: Path) -> None:
    session.surroundings.enter_context(hung_share(place))


def hang_model(session: Session) -> None:
    """Let the file system with the model hang, like a network share; save, then send SIGTERM."""
    _hang(session, session.model)
    session.type(SAVE)
    session.use(session.lot.uniform(0, 1.0))
    session.send(signal.SIGTERM)


def hang_snapshots(session: Session) -> None:
    """Let the file system with the snapshots hang, try to save there, then send SIGTERM."""
    _hang(session, session.snapshots)
    session.type(SAVE)
    session.use(session.lot.uniform(0, 1.0))
    session.send(signal.SIGTERM)


def hang_results(session: Session) -> None:
    """Let the file system for the results of `run` hang, then send SIGTERM."""
    _hang(session, session.snapshots)
    session.send(signal.SIGTERM)


def hang_and_close(session: Session) -> None:
    """Let the file system with the snapshots hang, try to save there, then close the terminal."""
    _hang(session, session.snapshots)
    session.type(SAVE)
    session.terminal.hang_up()


@dataclass(frozen=True)
class Way:
    """Which program is ended and how, and what has to be found afterwards."""

    program: Callable[[Session, dict[str, str]], None]
    end: Callable[[Session], None]
    saves: bool = False
    """Whether the program has time to save its unsaved answers when it is ended so."""
    says: str = ""
    """What the terminal has to show if nothing can be saved."""
    tidies: bool = False
    """Whether the program has time to remove a half-built checkpoint when it is ended so."""
    press: str = ""
    """Keys to press again each second until the program ends: before the screen starts, keys are
    lost."""
    hung: bool = False
    """Whether the file system for saving hangs: then the program first waits for it until a time
    limit."""


_TERM, _HUP, _INT, _KILL = signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL
_NOT_SAVED = "could not be saved"

WAYS = {
    "SIGKILL": Way(demo, signals(_KILL)),
    "SIGTERM": Way(demo, signals(_TERM), saves=True),
    "SIGHUP": Way(demo, signals(_HUP), saves=True),
    "terminal closed": Way(demo, close_terminal, saves=True),
    "worker SIGKILL": Way(demo, kill_a_worker, press=QUIT),
    "Ctrl+Q": Way(demo, quit_by_key, press=QUIT),
    "SIGTERM and SIGHUP at once": Way(pair, signals(_TERM, _HUP), saves=True),
    "SIGSTOP, SIGCONT, then Ctrl+Q": Way(pair, suspend_first),
    "SIGTERM while the workers answer nothing": Way(
        pair, terminate_with_silent_workers, saves=True
    ),
    "SIGTERM with a full disk": Way(pair, fill_disk, says=_NOT_SAVED),
    "SIGTERM while the model's share hangs": Way(pair, hang_model, saves=True),
    "SIGTERM while the snapshots' share hangs": Way(
        pair, hang_snapshots, says=_NOT_SAVED, hung=True
    ),
    "terminal closed while the snapshots' share hangs": Way(pair, hang_and_close, hung=True),
    "`run`: SIGKILL": Way(run, signals(_KILL)),
    "`run`: Ctrl+C": Way(run, signals(_INT), saves=True),
    "`run`: SIGTERM and SIGHUP at once": Way(run, signals(_TERM, _HUP), saves=True),
    "`run`: terminal closed": Way(run, close_terminal, saves=True),
    "`run`: Ctrl+C twice while the workers answer nothing": Way(
        run, interrupt_with_silent_workers, saves=True
    ),
    "`run`: SIGTERM with stderr closed": Way(run_without_stderr, signals(_TERM), saves=True),
    "`run`: SIGTERM with a full disk": Way(run, fill_disk, says="No space left on device"),
    "`run`: SIGTERM while the snapshots' share hangs": Way(
        run, hang_results, says="the disk does not answer", hung=True
    ),
    "`quantize`: SIGKILL": Way(quantize, signals(_KILL)),
    "`quantize`: SIGTERM": Way(quantize, signals(_TERM), tidies=True),
    "`quantize`: Ctrl+C": Way(quantize, signals(_INT), tidies=True),
}
