"""A worker as its owner sees it: commands in, events out, and an end that is certain.

The process gets two pipes of its own for messages; its stdout and stderr go to a private log file.
It begins a session of its own, so that Ctrl+C in the terminal does not reach it and so that all it
started (compilers, say) can be ended with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from quantchat import paths
from quantchat.errors import UserError
from quantchat.files import read_tail
from quantchat.host.limits import usable_cpus
from quantchat.host.process_group import kill_all
from quantchat.host.scratch import Scratch, sweep_once
from quantchat.wire.codec import ProtocolError
from quantchat.wire.messages import Command, Event, Shutdown, decode_event, encode

LINE_LIMIT = 16 * 2**20
"""Longest message line, in bytes: a whole answer of a long context fits many times over."""

SURROUNDINGS = {
    # As nvidia-smi and NVML count: CUDA's own order begins with the fastest.
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    # Two libraries with thread pools that spin would starve each other on few cores.
    "GOMP_SPINCOUNT": "10000",
    "GPTQMODEL_CPU_WORKERS": "2",
    # torch's default, said aloud: where nothing is said GPTQModel turns it on, and a GPTQ variant
    # would be compared with another one by memory that another allocator reserved.
    "PYTORCH_ALLOC_CONF": "expandable_segments:False",
    # cuDNN's attention, torch's first choice on Hopper and Blackwell, builds a plan of 20 to 40 ms
    # for each KV length it has not seen, and is silently wrong for some shapes on B200
    # (pytorch/pytorch#193893).
    "TORCH_CUDNN_SDPA_DEPRIORITIZED": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "TORCH_LOGS": "-all",
    "TORCHAO_FORCE_SKIP_LOADING_SO_FILES": "1",
    "PYTHONUNBUFFERED": "1",
}
"""What a worker's libraries find in their environment, where the user's own says nothing else."""


_BOOTSTRAP = Path(__file__).parents[1] / "worker" / "bootstrap.py"
"""The script that runs a worker under any interpreter."""


@dataclass(frozen=True)
class Place:
    """Where a worker runs: `label` names its log, `python` another interpreter than ours."""

    label: str
    python: str | None = None


class WorkerEnded(Exception):
    """The worker is gone. `returncode` is negative for a signal, as subprocess has it."""

    def __init__(self, returncode: int, log: Path) -> None:
        super().__init__(returncode)
        self.returncode = returncode
        self.log = log

    @property
    def reason(self) -> str:
        """One line on how it ended."""
        if self.returncode == -signal.SIGXCPU:
            return "the tokenizer or the chat template computed without an end: the worker is ended"
        if self.returncode == -signal.SIGABRT and _NO_MEMORY in self._end_of_log():
            return "the tokenizer, or other native code, wanted more memory than it may take"
        if self.returncode == -signal.SIGKILL:
            return "the worker was killed (signal 9)"
        if self.returncode < 0:
            try:
                name = signal.Signals(-self.returncode).name
            except ValueError:
                name = f"signal {-self.returncode}"
            return f"the worker died of {name}"
        return f"the worker ended unexpectedly (exit status {self.returncode})"

    def _end_of_log(self) -> str:
        with contextlib.suppress(OSError):
            return read_tail(self.log, 2**16)
        return ""


_NO_MEMORY = "memory allocation of"
"""So begins what Rust says of memory that it does not get, before it ends the process."""


class Worker(Protocol):
    """What the comparison needs of a worker. The seam at which tests put a scripted one."""

    @property
    def pid(self) -> int:
        """Process id."""

    @property
    def log(self) -> Path:
        """File with what the worker's libraries printed."""

    def send(self, command: Command) -> None:
        """Queue a command; never blocks. To a worker that is gone it does nothing."""

    def events(self) -> AsyncIterator[Event]:
        """Yield events in order, to one reader.

        Raises WorkerEnded at the end, ProtocolError for a line that is no message.
        """

    async def close(self) -> None:
        """End the worker and all it started; returns when it is gone. May be called twice."""


StartWorker = Callable[[Place], Awaitable[Worker]]


class WorkerProcess:
    """A real worker process (see the module). Made by `start_worker`."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        commands: asyncio.WriteTransport,
        reader: asyncio.StreamReader,
        life: IO[bytes],
        log: Path,
        scratch: Scratch | None,
    ) -> None:
        self._process = process
        self._commands = commands
        self._reader = reader
        self._life = life
        """Never written to: its end, also that of this process, ends the worker's whole session."""
        self._log = log
        self._scratch = scratch
        """Its temporary files, which go with it."""

    @property
    def pid(self) -> int:
        """Process id, also its session's."""
        return self._process.pid

    @property
    def log(self) -> Path:
        """File with what the worker's libraries printed."""
        return self._log

    def send(self, command: Command) -> None:
        """Queue a command; never blocks. To a worker that is gone it does nothing."""
        if not self._commands.is_closing():
            self._commands.write(encode(command))

    async def events(self) -> AsyncIterator[Event]:
        """Yield events in order. Raises WorkerEnded at the end, ProtocolError for rubbish."""
        while True:
            try:
                line = await self._reader.readline()
            except ValueError as error:  # longer than LINE_LIMIT
                raise ProtocolError(f"a line of over {LINE_LIMIT} bytes") from error
            if not line.endswith(b"\n"):
                # The pipe ended, perhaps in the middle of a line: that is an end, not rubbish.
                raise WorkerEnded(await self._process.wait(), self._log)
            yield decode_event(line)

    async def close(self, grace_s: float = 0.5) -> None:
        """Ask the worker to end, then make it, with its whole session. Safe to call twice."""
        self.send(Shutdown())
        self._commands.close()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._process.wait(), grace_s)
        self.kill()
        await self._process.wait()
        self._life.close()
        scratch, self._scratch = self._scratch, None
        if scratch is not None:
            await asyncio.to_thread(scratch.remove)

    def kill(self) -> None:
        """SIGKILL the whole session at once: also what a dead worker may have left behind."""
        kill_all(self._process.pid)


async def start_worker(place: Place) -> Worker:
    """Start a worker process. Raises UserError where its interpreter cannot be run."""
    log = new_log(place.label)
    python, environment = _executable(place)
    command_read, command_write = os.pipe()
    event_read, event_write = os.pipe()
    life_read, life_write = os.pipe()
    reader = asyncio.StreamReader(limit=LINE_LIMIT)
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as near, contextlib.ExitStack() as far:
        sweep_once()
        scratch = None
        with contextlib.suppress(OSError):  # its libraries will say what they miss
            scratch = Scratch()
            near.callback(scratch.remove)
            environment["TMPDIR"] = str(scratch.path)
        far.callback(os.close, command_read)
        far.callback(os.close, event_write)
        far.callback(os.close, life_read)
        event_file = near.enter_context(os.fdopen(event_read, "rb", 0))
        command_file = near.enter_context(os.fdopen(command_write, "wb", 0))
        life = near.enter_context(os.fdopen(life_write, "wb", 0))
        # The pipes first: once there is a process, nothing is waited for before it has an owner.
        events, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), event_file
        )
        near.callback(events.close)
        commands, _ = await loop.connect_write_pipe(asyncio.Protocol, command_file)
        near.callback(commands.close)
        try:
            with log.open("ab") as output:
                process = await asyncio.create_subprocess_exec(
                    *_command_line(python, command_read, event_write, life_read, os.getpid()),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=(command_read, event_write, life_read),
                    start_new_session=True,
                    env=environment,
                )
        except OSError as error:
            raise UserError(
                f"cannot run the interpreter: {error.strerror or error}",
                where=python,
                hint="name a Python executable in the variant's `python`",
            ) from error
        near.pop_all()
    return WorkerProcess(process, commands, reader, life, log, scratch)


def _command_line(python: str, commands: int, events: int, life: int, parent: int) -> list[str]:
    """Return the arguments that start a worker.

    `commands`, `events` and `life` are inherited pipe descriptors. The worker ends when the process
    `parent` dies, and with it the write end of `life`.
    """
    return [python, str(_BOOTSTRAP), *map(str, (commands, events, life, parent))]


def interpreter(python: str | None, env: str | None) -> str | None:
    """The interpreter of a variant that names `python`, or the environment `env`, or neither.

    Raises UserError where the environment is not there.
    """
    if not env:
        return python
    from quantchat.host.environments import (
        Environments,  # few name one, and no first frame needs it
    )

    return str(Environments().find(env).interpreter)


def _executable(place: Place) -> tuple[str, dict[str, str]]:
    """The executable and its environment; another interpreter gets none of our module paths."""
    environment = {
        **SURROUNDINGS,
        **_folders(),
        # OpenMP knows the affinity and no CPU quota. Each request names its own threads; this is
        # for loading, and for jobs.
        "OMP_NUM_THREADS": str(usable_cpus()),
    }
    if older := os.environ.get("PYTORCH_CUDA_ALLOC_CONF"):  # which the newer name overrides
        environment["PYTORCH_ALLOC_CONF"] = older
    environment |= os.environ
    environment["MPLBACKEND"] = "agg"  # a notebook's own names a module that is not here
    python = sys.executable
    if place.python is not None:
        python = str(Path(place.python).expanduser())
        for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"):
            environment.pop(name, None)
    # torch looks for ninja on PATH, and it lies beside the interpreter: not on PATH where that is
    # run by its full name, as pipx does. Kernels would not be compiled.
    if found := shutil.which(python):
        beside = str(Path(found).absolute().parent)
        environment["PATH"] = os.pathsep.join((environment.get("PATH") or os.defpath, beside))
    return python, environment


def _folders() -> dict[str, str]:
    """Variables that name folders: else libraries choose some by a fixed name below /tmp."""
    cache = paths.cache_dir()
    # Both hold code that will be run, so they are made here: the libraries would let the umask
    # decide who may write to them. They outlive a worker: a second start finds what was compiled.
    compiled, modules = cache / "compiled", cache / "modules"
    for folder in (compiled, modules):
        with contextlib.suppress(OSError):  # a cache that is read only: said once it is needed
            paths.private(folder)
    hub = paths.hub_cache()
    if not paths.can_be_written(hub) and not hub.is_dir():
        hub = cache / "huggingface" / "hub"  # GPTQModel makes this folder when it is imported
    named = {
        "TORCHINDUCTOR_CACHE_DIR": str(compiled),
        # Said aloud: where nothing is said GPTQModel takes /tmp/tokenicer_hf_home, any user's.
        "HF_HOME": str(paths.hub_home()),
        "HF_HUB_CACHE": str(hub),
        "HF_MODULES_CACHE": str(modules),
    }
    if not paths.has_home():  # libraries would make a folder that is called `~`
        named |= {"HOME": str(cache), "USER": str(os.getuid())}
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        with contextlib.suppress(OSError):
            named["TMPDIR"] = str(paths.temporary_dir())
    return named


def new_log(label: str) -> Path:
    """Make a log file, private to the user, with a name that cannot leave its folder.

    On a full disk it is the null device: what is to be measured needs no log. Raises OSError.
    """
    try:
        return _new_file(label, paths.private(paths.logs_dir()))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return Path(os.devnull)


def _new_file(label: str, folder: Path) -> Path:
    slug = re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")[:40] or "worker"
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{slug}-{os.getpid()}"
    log, number = folder / f"{stem}.log", 1
    while True:  # one that ends at once may be started again within a second
        try:
            log.touch(mode=0o600, exist_ok=False)
        except FileExistsError:
            number += 1
            log = folder / f"{stem}-{number}.log"
        else:
            return log
