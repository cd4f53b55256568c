"""Starts and ends worker processes, sends them commands and reads their events.

A worker has two pipes for messages; its stdout and stderr go to a private log file. Each worker
runs in its own session, so that Ctrl+C in the terminal does not reach it, and so that all processes
that it started (compilers, say) can be ended with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from quantchat import paths
from quantchat.errors import UserError
from quantchat.files import read_tail
from quantchat.host.limits import compute_threads
from quantchat.host.logs import new_log
from quantchat.host.process_group import kill_all
from quantchat.host.scratch import Scratch, sweep_once
from quantchat.wire.codec import ProtocolError
from quantchat.wire.messages import Shutdown
from quantchat.wire.protocol import Command, Event, decode_event, encode

LINE_LIMIT = 16 * 2**20
"""Longest message line in bytes: far longer than the longest answer."""

WORKER_VARIABLES = {
    # Number GPUs as nvidia-smi and NVML do: CUDA's own order puts the fastest GPU first.
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    # Limit spinning: on few cores, waiting OpenMP threads that spin would starve other threads.
    "GOMP_SPINCOUNT": "10000",
    "GPTQMODEL_CPU_WORKERS": "2",
    # torch's default, set explicitly: otherwise GPTQModel turns expandable segments on, and the
    # memory of a GPTQ variant would be reserved in another way than that of the other variant.
    "PYTORCH_ALLOC_CONF": "expandable_segments:False",
    # torch prefers cuDNN attention on Hopper and Blackwell. cuDNN takes 20 to 40 ms to build a
    # plan for each new KV length, and gives wrong results for some shapes on B200
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
"""Environment variables for a worker's libraries; the user's own values take precedence."""


_BOOTSTRAP = Path(__file__).parents[1] / "worker" / "bootstrap.py"
"""The script that runs a worker under any interpreter."""


@dataclass(frozen=True)
class Place:
    """Where a worker runs.

    `label` names its log. `python` is its interpreter; None means the one that runs quantchat.
    """

    label: str
    python: str | None = None


class WorkerEnded(Exception):
    """The worker has ended. `returncode` is negative for a signal, as in subprocess."""

    def __init__(self, returncode: int, log: Path) -> None:
        super().__init__(returncode)
        self.returncode = returncode
        self.log = log

    @property
    def reason(self) -> str:
        """How the worker ended, in one line."""
        # A worker limits its CPU time only while it runs a tokenizer or template (`text_bounds`).
        if self.returncode == -signal.SIGXCPU:
            return "the tokenizer or the chat template did not finish, so the worker was ended"
        if self.returncode == -signal.SIGABRT and _NO_MEMORY in self._end_of_log():
            return "the tokenizer, or other native code, needed more memory than it may use"
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
"""Start of the message that Rust prints before it aborts because memory cannot be allocated."""


class Worker(Protocol):
    """The interface of a worker. Tests implement it with a scripted worker."""

    @property
    def pid(self) -> int:
        """Process id."""

    @property
    def log(self) -> Path:
        """File with the output of the worker's libraries."""

    def send(self, command: Command) -> None:
        """Queue a command; never blocks. Does nothing if the worker has ended."""

    def events(self) -> AsyncIterator[Event]:
        """Yield events in order, to a single reader.

        Raises WorkerEnded at the end, ProtocolError for a line that is not a message.
        """

    async def close(self) -> None:
        """End the worker and all processes it started; wait for its end. May be called twice."""


StartWorker = Callable[[Place], Awaitable[Worker]]


class WorkerProcess:
    """A real worker process, started by `start_worker`."""

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
        """Write end of a pipe to which nothing is written. When it is closed, for example because
        this process dies, the worker's whole session ends."""
        self._log = log
        self._scratch = scratch
        """The worker's temporary folder, removed when it ends."""

    @property
    def pid(self) -> int:
        """Id of the process and of its session."""
        return self._process.pid

    @property
    def log(self) -> Path:
        """File with the output of the worker's libraries."""
        return self._log

    def send(self, command: Command) -> None:
        """Queue a command; never blocks. Does nothing if the worker has ended."""
        if not self._commands.is_closing():
            self._commands.write(encode(command))

    async def events(self) -> AsyncIterator[Event]:
        """Yield events in order. Raises WorkerEnded at the end, ProtocolError for invalid lines."""
        while True:
            try:
                line = await self._reader.readline()
            except ValueError as error:  # longer than LINE_LIMIT
                raise ProtocolError(f"a line of over {LINE_LIMIT} bytes") from error
            if not line.endswith(b"\n"):
                # The pipe ended, perhaps within a line: the worker has ended.
                raise WorkerEnded(await self._process.wait(), self._log)
            yield decode_event(line)

    async def close(self, grace_s: float = 0.5) -> None:
        """Ask the worker to end; after `grace_s`, kill its session. May be called twice."""
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
        """SIGKILL the whole session at once, including processes that a dead worker left behind."""
        kill_all(self._process.pid)


async def start_worker(place: Place) -> Worker:
    """Start a worker process. Raises UserError if its interpreter cannot be run."""
    log = new_log(place.label)
    python, environment = _executable(place)
    command_read, command_write = os.pipe()
    event_read, event_write = os.pipe()
    life_read, life_write = os.pipe()
    reader = asyncio.StreamReader(limit=LINE_LIMIT)
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as our_ends, contextlib.ExitStack() as worker_ends:
        sweep_once()
        scratch = None
        with contextlib.suppress(OSError):  # a library that needs the folder reports an error
            scratch = Scratch()
            our_ends.callback(scratch.remove)
            environment["TMPDIR"] = str(scratch.path)
        worker_ends.callback(os.close, command_read)
        worker_ends.callback(os.close, event_write)
        worker_ends.callback(os.close, life_read)
        event_file = our_ends.enter_context(os.fdopen(event_read, "rb", 0))
        command_file = our_ends.enter_context(os.fdopen(command_write, "wb", 0))
        life = our_ends.enter_context(os.fdopen(life_write, "wb", 0))
        # Connect the pipes before starting the process. After the start nothing may be awaited
        # until a `WorkerProcess` owns the process: a cancellation would leave it running.
        events, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), event_file
        )
        our_ends.callback(events.close)
        commands, _ = await loop.connect_write_pipe(asyncio.Protocol, command_file)
        our_ends.callback(commands.close)
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
        our_ends.pop_all()
    return WorkerProcess(process, commands, reader, life, log, scratch)


def _command_line(python: str, commands: int, events: int, life: int, parent: int) -> list[str]:
    """Return the arguments that start a worker.

    `commands`, `events` and `life` are inherited pipe descriptors. The worker ends when the process
    `parent` dies, which closes the write end of `life`.
    """
    return [python, str(_BOOTSTRAP), *map(str, (commands, events, life, parent))]


def _executable(place: Place) -> tuple[str, dict[str, str]]:
    """Return the interpreter and its environment variables.

    An interpreter other than the one that runs quantchat gets no variables with module paths.
    """
    environment = {
        **WORKER_VARIABLES,
        **_folders(),
        # OpenMP considers the affinity but no CPU quota. This value is for loading and for jobs;
        # each generation request sets its own number of threads.
        "OMP_NUM_THREADS": str(compute_threads()),
    }
    # torch reads the newer name first: the default above would hide the older name's value.
    if older := os.environ.get("PYTORCH_CUDA_ALLOC_CONF"):
        environment["PYTORCH_ALLOC_CONF"] = older
    environment |= os.environ
    environment["MPLBACKEND"] = "agg"  # a notebook sets one that a worker cannot import
    python = sys.executable
    if place.python is not None:
        python = str(Path(place.python).expanduser())
        for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"):
            environment.pop(name, None)
    # torch needs ninja on PATH to compile kernels. ninja lies beside the interpreter, whose folder
    # is not on PATH if it is run by its full path, as pipx does.
    if found := shutil.which(python):
        beside = str(Path(found).absolute().parent)
        environment["PATH"] = os.pathsep.join((environment.get("PATH") or os.defpath, beside))
    return python, environment


def _folders() -> dict[str, str]:
    """Return environment variables that name folders.

    Without them, libraries use folders with fixed names in /tmp.
    """
    cache = paths.cache_dir()
    # Both folders hold code that will be run. Create them here, private to the user: the libraries
    # would leave the permissions to the umask. The folders are never removed, so that kernels are
    # compiled only once.
    compiled, modules = cache / "compiled", cache / "modules"
    for folder in (compiled, modules):
        with contextlib.suppress(OSError):  # a read-only cache is reported when it is needed
            paths.private(folder)
    hub = paths.hub_cache()
    if not paths.can_be_written(hub) and not hub.is_dir():
        # Importing GPTQModel creates the hub folder, so it must be in a folder that can be written.
        hub = cache / "huggingface" / "hub"
    named = {
        "TORCHINDUCTOR_CACHE_DIR": str(compiled),
        # Set explicitly: otherwise GPTQModel uses /tmp/tokenicer_hf_home, shared by all users.
        "HF_HOME": str(paths.hub_home()),
        "HF_HUB_CACHE": str(hub),
        "HF_MODULES_CACHE": str(modules),
    }
    if not paths.has_home():  # otherwise libraries would create a folder named `~`
        named |= {"HOME": str(cache), "USER": str(os.getuid())}
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        with contextlib.suppress(OSError):
            named["TMPDIR"] = str(paths.temporary_dir())
    return named
