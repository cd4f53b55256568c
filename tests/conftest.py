"""Fixtures and settings shared by all tests, such as the demo's checkpoints, built once."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from fakes.imports import is_fast
from fakes.openai_server import FakeServer, serving
from quantchat import paths
from quantchat.checkpoints.builder import CheckpointBuilder
from quantchat.profile import library
from quantchat.profile.load import load

# A busy machine is no fault of the code, so properties are checked without a deadline. Examples are
# the same in each run, fewer under `-m fast`; `--hypothesis-profile explore` looks for new ones.
_quiet = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quantchat", _quiet, derandomize=True)
settings.register_profile("fast", _quiet, derandomize=True, max_examples=20)
settings.register_profile("explore", _quiet, max_examples=2000)
settings.load_profile("quantchat")

MAKING_S = 1800
"""Time limit in s of a test that may have to build the checkpoints first, on two busy cores."""


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """Yield a server on loopback that speaks OpenAI's protocol."""
    with serving() as one:
        yield one


@pytest.fixture(autouse=True)
def _not_asked_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget that a command of an earlier test was stopped: quantchat runs one in a process."""
    monkeypatch.setattr("quantchat.host.signals._asked_to_stop", False)


@pytest.fixture
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the user's folders below `tmp_path`, so that a test uses none of the real ones."""
    for name in ("CONFIG", "CACHE", "SNAPSHOTS", "LOGS"):
        monkeypatch.setenv(f"QUANTCHAT_{name}", str(tmp_path / name.lower()))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)


@pytest.fixture
def compiled_here(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Give Inductor a cache that starts empty and is shared by all tests of the run."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder / "compiled"))


def pytest_configure(config: pytest.Config) -> None:
    """Set what all tests and the programs that they start inherit.

    OpenMP computes in one thread, however many are asked for: two test processes with a worker or
    two each share two cores, and threads that wait for each other spin. torch must not ask for
    more threads than that: see `compute_threads`. Ctrl+C and SIGHUP are enabled where they are
    ignored, as in a background job or under nohup: tests send them. And Python keeps its bytecode,
    also where a container's image turns that off: the tests start hundreds of processes, and each
    would compile quantchat again.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    # Workers with a cache of their own share what is compiled once for all.
    compiled = _test_cache() / "compiled"
    with contextlib.suppress(OSError):
        paths.private(compiled)
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(compiled))
    os.environ.setdefault("OMP_THREAD_LIMIT", "1")
    os.environ.setdefault("OMP_NUM_THREADS", os.environ["OMP_THREAD_LIMIT"])
    if _only_fast(config):
        settings.load_profile("fast")
    for number, handler in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGHUP, signal.SIG_DFL),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


def _only_fast(config: pytest.Config) -> bool:
    return bool(config.option.markexpr == "fast")


def pytest_collection_finish() -> None:
    """Keep garbage collections from looking through all imported modules: a tenth of the time."""
    gc.collect()
    gc.freeze()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Under `-m fast`, import no file of other tests: some of them import torch."""
    if _only_fast(config) and collection_path.suffix == ".py":
        return not is_fast(collection_path) or None
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if is_fast(item.path) and item.get_closest_marker("simulation") is None:
            item.add_marker(pytest.mark.fast)
    on_the_demo = [item for item in items if "_demo_made" in getattr(item, "fixturenames", ())]
    for item in on_the_demo:
        item.add_marker(pytest.mark.timeout(MAKING_S))
    # A file that needs the demo comes first: one process builds the checkpoints, and the other has
    # many tests that do not need them. Otherwise both would need them at once, and one would wait.
    if on_the_demo:
        items.sort(key=lambda item: item.path != on_the_demo[0].path)


def _test_cache() -> Path:
    """Return the folder that keeps the demo's checkpoints from one run of the tests to the next."""
    named = os.environ.get("QUANTCHAT_TEST_CACHE")
    return Path(named).absolute() if named else paths.cache_dir()


@pytest.fixture(scope="session")
def _demo_made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Path]]]:
    cache = _test_cache()
    variants = load(library.find("demo")).variants
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANTCHAT_CACHE", str(cache))
        patch.setenv("QUANTCHAT_LOGS", str(cache / "logs"))

        async def make() -> dict[str, Path]:
            builder = CheckpointBuilder()
            making = (builder.prepare(variant, lambda progress: None) for variant in variants)
            made = await asyncio.gather(*making)
            return {v.engine: Path(p.model) for v, p in zip(variants, made, strict=True)}

        # In a separate thread, because its event loop must not conflict with pytest-asyncio's.
        with pytest.MonkeyPatch.context() as moved, ThreadPoolExecutor(1) as thread:
            moved.chdir(elsewhere)
            made = thread.submit(lambda: asyncio.run(make())).result()
        assert list(elsewhere.iterdir()) == [], "making wrote into the current folder"
        yield cache, made


@pytest.fixture(scope="session")
def demo_cache(_demo_made: tuple[Path, dict[str, Path]]) -> Path:
    """Return a cache folder with the demo's checkpoints, which `QUANTCHAT_CACHE` names.

    `QUANTCHAT_TEST_CACHE` chooses it; by default it is the user's own cache, so that tests and
    `quantchat demo` share the checkpoints.
    """
    return _demo_made[0]


@pytest.fixture(scope="session")
def demo_base(_demo_made: tuple[Path, dict[str, Path]]) -> Path:
    """Return the folder of the demo's base model in bf16."""
    return _demo_made[1]["transformers"]


@pytest.fixture(scope="session")
def demo_gptq(_demo_made: tuple[Path, dict[str, Path]]) -> Path:
    """Return the folder of the demo's GPTQ checkpoint."""
    return _demo_made[1]["gptq"]
