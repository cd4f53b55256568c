"""Creates virtual environments with other library versions, with pip, in the cache folder.

A variant that names an environment runs with the interpreter of that environment. An environment is
valid once its `made.json` exists. That file is written last, so an environment whose creation was
interrupted has none.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from quantchat import paths
from quantchat.errors import UserError
from quantchat.files import read_tail, write_whole
from quantchat.host.logs import new_log
from quantchat.host.pip import PIP, QUIET, failure, run
from quantchat.text import one_line
from quantchat.wire.messages import Progress

_MADE_FILE = "made.json"
# Run by the new interpreter: prints its version and its packages.
_LIST_PACKAGES = """
import importlib.metadata, json, platform
found = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
print(json.dumps([platform.python_version(), found]))
"""
_TAIL = 4096
"""Bytes at the end of pip's log that are searched for its last step."""
_STEPS = re.compile(r"(?:Collecting|Downloading|Building wheel for|Installing collected) .*")


@dataclass(frozen=True)
class Environment:
    """A virtual environment; `packages` maps the name of each library to its version."""

    name: str
    folder: Path
    python: str
    """Version of the environment's Python; empty if the environment was never finished."""
    requirements: tuple[str, ...]
    packages: dict[str, str]

    @property
    def interpreter(self) -> Path:
        """Path of the environment's Python interpreter."""
        return self.folder / "bin" / "python"

    @property
    def bytes(self) -> int:
        """Size of the environment on the disk in bytes, without following links."""
        files = (file for file in self.folder.rglob("*") if not file.is_dir())
        return sum(file.lstat().st_size for file in files)


class Environments:
    """The environments in `folder` (default: in the user's cache)."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or paths.cache_dir() / "environments"

    def entries(self) -> list[Environment]:
        """Return all environments sorted by name, including unfinished ones."""
        with contextlib.suppress(FileNotFoundError):
            folders = sorted(one for one in self.folder.iterdir() if one.is_dir())
            return [_read(one) for one in folders if re.fullmatch(paths.ENVIRONMENT, one.name)]
        return []

    def find(self, name: str) -> Environment:
        """Return the environment `name`. Raises UserError if it does not exist."""
        folder = self.folder / name
        found = _read(folder) if re.fullmatch(paths.ENVIRONMENT, name) and folder.is_dir() else None
        if found is None or not (found.python and found.interpreter.exists()):
            hint = f"quantchat env create {name}"
            what = "no such environment" if found is None else "this environment was never finished"
            raise UserError(what, where=f"env {name}", hint=hint)
        return found

    def remove(self, name: str) -> None:
        """Delete environment `name`.

        Raises UserError if it is being created, OSError if it cannot be deleted.
        """
        with self._locked(name):
            shutil.rmtree(self.folder / name)

    async def create(
        self,
        name: str,
        requirements: Sequence[str],
        report: Callable[[Progress], None],
        *,
        file: Path | None = None,
        python: str = sys.executable,
        pip: Sequence[str] = PIP,
    ) -> Environment:
        """Create the environment `name` with the interpreter `python`, or return the existing one.

        `requirements` are recorded; if `file` is given, pip reads them from it. `report` is called
        with the progress. Raises OSError, and UserError if it cannot be created or exists with
        other requirements. Cancelling removes everything again.
        """
        paths.private(self.folder)
        self._clear_leftovers()
        with self._locked(name):
            folder = self.folder / name
            existing = _read(folder) if folder.is_dir() else None
            if existing is not None and existing.python:
                if existing.requirements == tuple(requirements):
                    return existing
                raise UserError(
                    "already exists with other requirements",
                    where=f"env {name}",
                    hint=f"run `quantchat env remove {name}`, or choose another name",
                )
            arguments = ("-r", str(file)) if file else tuple(requirements)
            made = Environment(name, folder, "", tuple(requirements), {})
            scratch = paths.private(self.folder / f".{name}.tmp")
            try:
                return await _make(made, arguments, scratch, report, python, pip)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            finally:
                shutil.rmtree(scratch, ignore_errors=True)

    def _clear_leftovers(self) -> None:
        """Remove downloads and unfinished environments of processes that were killed."""
        for scratch in self.folder.glob(".*.tmp"):
            name = scratch.name.removeprefix(".").removesuffix(".tmp")
            with contextlib.suppress(UserError), self._locked(name):  # skip one being created
                if not _read(self.folder / name).python:
                    shutil.rmtree(self.folder / name, ignore_errors=True)
                shutil.rmtree(scratch, ignore_errors=True)

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        from filelock import FileLock, Timeout

        try:
            with FileLock(self.folder / f".{name}.lock", timeout=0, mode=0o600):
                yield
        except Timeout:
            raise UserError(
                "another quantchat process is making this environment",
                where=f"env {name}",
                hint="try again when it has finished",
            ) from None


def interpreter(python: str | None, env: str | None) -> str | None:
    """Return the interpreter of a variant with the settings `python` and `env`.

    None means the interpreter that runs quantchat.

    Raises UserError if the environment `env` does not exist.
    """
    return str(Environments().find(env).interpreter) if env else python


def read_requirements(file: Path) -> tuple[str, ...]:
    """Return the requirements in `file`, without comments and blank lines. Raises UserError."""
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        why = error.strerror or str(error)
        raise UserError(f"cannot be read: {why}", where=one_line(str(file))) from error
    except UnicodeDecodeError as error:
        raise UserError("is not a UTF-8 text file", where=one_line(str(file))) from error
    found = tuple(line for line in lines if line and not line.startswith("#"))
    if not found:
        hint = "write one package per line, such as bitsandbytes==0.49.2"
        raise UserError("has no requirements", where=one_line(str(file)), hint=hint)
    return found


async def _make(
    environment: Environment,
    arguments: Sequence[str],
    scratch: Path,
    report: Callable[[Progress], None],
    python: str,
    pip: Sequence[str],
) -> Environment:
    log = new_log(f"env {environment.name}")
    what = f"cannot make the environment {environment.name}"
    report(Progress("making the environment"))
    # The environment needs no pip of its own: the command `pip` installs into it from outside.
    # Some Pythons lack ensurepip.
    create = [python, "-m", "venv", "--clear", "--without-pip", str(environment.folder)]
    if await run(create, scratch, log, lambda: None):
        raise UserError(f"{what}: {python} -m venv failed", hint=f"see the log {log}")
    environment.folder.chmod(0o700)
    path = str(environment.interpreter)
    install = [*pip, "--python", path, "install", *QUIET, f"--log={log}", *arguments]

    def poll() -> None:
        report(Progress("installing libraries", detail=_last_step(log)))

    status = await run(install, scratch, log, poll)
    if status:
        failed = failure(what, status, log)
        raise UserError(failed.reason, hint=failed.hint)
    process = await asyncio.create_subprocess_exec(
        path, "-I", "-c", _LIST_PACKAGES, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    version, packages = json.loads(output)
    environment = replace(environment, python=version, packages=dict(sorted(packages.items())))
    body = {
        key: value for key, value in asdict(environment).items() if key not in ("name", "folder")
    }
    write_whole(environment.folder / _MADE_FILE, json.dumps(body, indent=1).encode())
    return environment


def _read(folder: Path) -> Environment:
    """Read the environment in `folder`; an unfinished one has an empty `python`."""
    try:
        body = json.loads((folder / _MADE_FILE).read_bytes())
        return Environment(
            folder.name,
            folder,
            str(body["python"]),
            tuple(map(str, body["requirements"])),
            {str(name): str(version) for name, version in body["packages"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Environment(folder.name, folder, "", (), {})


def _last_step(log: Path) -> str:
    """Return what pip is doing, from the end of its log; empty if that is not known."""
    with contextlib.suppress(OSError):
        steps = _STEPS.findall(read_tail(log, _TAIL))
        return one_line(steps[-1]) if steps else ""
    return ""
