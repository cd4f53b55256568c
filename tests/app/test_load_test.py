"""A load test from the start screen: the form, live bars, stop, and the saved snapshot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, OptionList

from fakes.in_process_jobs import InProcessJobs
from fakes.openai_server import FakeServer, serving
from fakes.screen_reader import see, see_gone, wait_until
from fakes.scripted_app import SIZES
from fakes.scripted_machine import ScriptedMachine
from fakes.served_pair import served_pair
from quantchat import paths
from quantchat.app.app import QuantchatApp
from quantchat.app.screens.load_test_form import LoadTestForm
from quantchat.app.screens.start import StartScreen
from quantchat.checkpoints.builder import CheckpointBuilder
from quantchat.snapshot import store
from quantchat.snapshot.load_test import LoadTestRecord


def app_of(folder: Path, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> QuantchatApp:
    """Return the app, with a profile of two variants at `server` as the first of the list."""
    monkeypatch.chdir(folder)
    home = paths.config_dir() / "profiles"
    home.mkdir(parents=True)
    (home / "aaa.toml").write_text(served_pair(server.url))
    jobs = InProcessJobs()
    return QuantchatApp(
        None,
        snapshots=folder / "snapshots",
        make_sampler=lambda: ScriptedMachine(),
        provider=CheckpointBuilder(start=jobs.start),
        start=jobs.start,
    )


async def begin(app: QuantchatApp, pilot: Pilot[Any], **values: str) -> None:
    """Fill the form for the first profile, and press Enter."""
    await see(pilot, "aaa your own")
    app.screen.query_one("#profiles", OptionList).highlighted = 0
    await pilot.press("l")
    await wait_until(pilot, lambda: isinstance(app.screen, LoadTestForm), "the form")
    await wait_until(pilot, lambda: app.focused is not None, "the cursor in it")
    for name, value in values.items():
        app.screen.query_one(f"#{name}", Input).value = value
    await pilot.press("enter")


def saved(folder: Path) -> LoadTestRecord:
    (file,) = (folder / "snapshots").glob("*.json")
    found = store.load(file).load_test
    assert found is not None
    return found


@pytest.mark.parametrize("size", SIZES)
async def test_bars_while_it_runs_and_tables_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    with serving() as server:
        server.behaviour = "endless"
        app = app_of(tmp_path, server, monkeypatch)
        async with app.run_test(size=size, notifications=True) as pilot:
            await begin(app, pilot, at_once="2,3", requests="4", rounds="2")
            await see(pilot, "in flight, 0 of 2 warm-up, 0 failed")
            await see(pilot, "other waiting")
            server.behaviour = "ok"
            await see(pilot, "Saved")
            await see_gone(pilot, "in flight")
            await see(pilot, "tok/s TTFT p95")
            await see(pilot, "0 failed")
            await pilot.press("end")
            await see(pilot, "other ÷ one")
            await pilot.press("escape")
            await wait_until(pilot, lambda: isinstance(app.screen, StartScreen), "the start screen")
            await see(pilot, "load servers")
    found = saved(tmp_path)
    assert [level.concurrency for level in found.levels] == [2, 3]
    assert [len(model.rounds) for model in found.models] == [4, 4]


async def test_stopped_it_keeps_the_finished_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as server:
        app = app_of(tmp_path, server, monkeypatch)
        async with app.run_test(size=(120, 40), notifications=True) as pilot:
            await begin(app, pilot, at_once="1", requests="2", rounds="1000")
            await see(pilot, "TTFT p95")
            await pilot.press("escape")
            server.behaviour = "401"  # ends the thread that stands for a worker
            await see(pilot, "Saved")
            await see(pilot, "stopped before its last round")
    found = saved(tmp_path)
    (model,) = found.models
    assert 0 < len(model.rounds) < 1000
    assert found.undone == ["other"]


async def test_a_server_that_refuses_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as server:
        server.behaviour = "401"
        app = app_of(tmp_path, server, monkeypatch)
        async with app.run_test(size=(80, 24), notifications=True) as pilot:
            await begin(app, pilot, at_once="1")
            await see(pilot, "refused (401): it requires a key")
    assert not list((tmp_path / "snapshots").glob("*.json"))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("at_once", "1,x", "at once: '1,x' is not a list of counts"),
        ("rates", "0", "requests per s: '0' is not a list of requests per second"),
        ("rounds", "0", "rounds: 0 is not in the range"),
        ("slo", "ttft < 5", "goodput limits: 'ttft < 5' is not a limit"),
    ],
)
async def test_what_is_wrong_with_a_value_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    with serving() as server:
        app = app_of(tmp_path, server, monkeypatch)
        async with app.run_test(size=(80, 24), notifications=True) as pilot:
            await begin(app, pilot, **{name: value})
            await see(pilot, said)


async def test_a_local_model_takes_no_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as server:
        app = app_of(tmp_path, server, monkeypatch)
        body = served_pair(server.url) + '[[variants]]\nlabel = "local"\nengine = "transformers"\n'
        file = paths.config_dir() / "profiles" / "aaa.toml"
        file.write_text(body + 'model = "demo:smollm2-135m-instruct"\n')
        async with app.run_test(size=(80, 24), notifications=True) as pilot:
            await begin(app, pilot, rates="2")
            await see(pilot, "local: a local model decodes static batches")
