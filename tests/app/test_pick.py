"""A pick from the start screen: the form, its progress, the sorted table, stop and resume."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from textual.command import CommandPalette
from textual.widgets import Input, OptionList

from fakes.screen_reader import lines, see, see_gone, text, wait_until
from fakes.scripted_app import SIZES
from fakes.scripted_machine import GPU, ScriptedMachine
from fakes.scripted_pick import PickWorkers
from fakes.scripted_worker import Script
from quantchat import paths
from quantchat.app.app import QuantchatApp
from quantchat.app.screens.pick import PickScreen
from quantchat.app.screens.pick_form import PickForm
from quantchat.app.screens.start import StartScreen
from quantchat.snapshot import store
from quantchat.snapshot.schema import Snapshot
from quantchat.wire.messages import Failed

FAR = {"bf16": 0.0, "nf4": 0.08, "int8": 0.01}
MS = {"bf16": 40.0, "nf4": 10.0, "int8": 20.0}
KEYS = {
    "bf16": 'engine = "transformers"\ndtype = "bfloat16"',
    "nf4": 'engine = "bitsandbytes"\nquant_type = "nf4"',
    "int8": 'engine = "bitsandbytes"\nquant_type = "int8"',
}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's profile of three variants, which is the first of the list."""
    monkeypatch.chdir(tmp_path)
    folder = paths.config_dir() / "profiles"
    folder.mkdir(parents=True)
    body = 'name = "Three"\n[run]\nprompts = ["one", "two", "three"]\n'
    for label, keys in KEYS.items():
        body += f'[[variants]]\nlabel = "{label}"\nmodel = "demo:smollm2-135m-instruct"\n'
        body += f'device = "cpu"\n{keys}\n'
    (folder / "aaa.toml").write_text(body)
    return tmp_path


def workers(folder: Path) -> PickWorkers:
    return PickWorkers({label: Script(token_ms=ms) for label, ms in MS.items()}, FAR, folder)


def app_of(folder: Path, its: PickWorkers) -> QuantchatApp:
    return QuantchatApp(
        None,
        snapshots=folder / "snapshots",
        make_sampler=lambda: ScriptedMachine(GPU),
        provider=its.provider,
        start=its.start,
    )


async def form(app: QuantchatApp, pilot: object, **values: str) -> None:
    """Open the form for the first profile, and fill it."""
    await see(pilot, "aaa your own")  # type: ignore[arg-type]
    app.screen.query_one("#profiles", OptionList).highlighted = 0
    await pilot.press("p")  # type: ignore[attr-defined]
    await wait_until(pilot, lambda: isinstance(app.screen, PickForm), "the form")  # type: ignore[arg-type]
    await wait_until(pilot, lambda: app.focused is not None, "the cursor in it")  # type: ignore[arg-type]
    for name, value in values.items():
        app.screen.query_one(f"#{name}", Input).value = value


def saved(folder: Path) -> list[Snapshot]:
    """Return the saved snapshots, the oldest first."""
    files = (folder / "snapshots").glob("*.json")
    return [store.load(file) for file in sorted(files, key=lambda one: one.stat().st_mtime_ns)]


def order(app: QuantchatApp) -> list[str]:
    """Return the labels of the table, from its top."""
    found = []
    for line in lines(app):
        words = line.replace("│", " ").split()
        if len(words) > 4 and len(words[0]) == 1 and words[1] in FAR:
            found.append(words[1])
    return found


@pytest.mark.parametrize("size", SIZES)
async def test_from_the_form_to_the_recommendation(own: Path, size: tuple[int, int]) -> None:
    its = workers(own)
    app = app_of(own, its)
    async with app.run_test(size=size, notifications=True) as pilot:
        await form(app, pilot, max_kld="0.05", rounds="2")
        await see(pilot, "Enter or ^S: begin")
        await pilot.press("enter")
        await see(pilot, "Saved")
        await see(pilot, "Take int8: decodes")
        assert order(app) == list(MS)
        (snapshot,) = saved(own)
        assert snapshot.pick is not None and snapshot.pick.recommended == "int8"
        assert snapshot.pick.limits.max_kld == 0.05
        await pilot.press("end")
        await see(pilot, "tok/s (more is better)")
        await pilot.press("escape")
        await wait_until(pilot, lambda: isinstance(app.screen, StartScreen), "the start screen")
        await see(pilot, "pick Three")
    assert not list((paths.cache_dir() / "picks").glob("*/state.json")), "nothing is left to resume"


async def test_the_table_sorts(own: Path) -> None:
    app = app_of(own, workers(own))
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await form(app, pilot)
        await pilot.press("enter")
        await see(pilot, "Saved")
        await see(pilot, "were measured one after the other")  # a warning of the measurement
        for column, expected in (
            ("memory", ["bf16", "nf4", "int8"]),
            ("tok/s", ["nf4", "int8", "bf16"]),
            ("KLD", ["bf16", "int8", "nf4"]),
        ):
            await pilot.press("s")
            await see(pilot, f"{column} ▲")
            assert order(app) == expected
        await pilot.press("r")
        await see(pilot, "KLD ▼")
        assert order(app) == ["nf4", "int8", "bf16"]
        await pilot.press("r", "s")
        await see_gone(pilot, "▲")
        assert order(app) == list(MS)


async def test_progress_stop_and_resume(own: Path) -> None:
    its = workers(own)
    its.hold["int8"] = asyncio.Event()
    app = app_of(own, its)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await form(app, pilot, rounds="2")
        await pilot.press("enter")
        await wait_until(pilot, lambda: ("score", "int8") in its.begun, "int8 is scored")
        await see(pilot, "So far: Take nf4")
        await see(pilot, "waiting")
        await pilot.press("escape")
        await see(pilot, "stopped before the end")
        assert isinstance(app.screen, PickScreen)
        await pilot.press("escape")
        await wait_until(pilot, lambda: isinstance(app.screen, StartScreen), "the start screen")
        (stopped,) = saved(own)
        assert stopped.pick is not None and stopped.pick.stopped

        done = list(its.begun)
        its.hold["int8"].set()
        await form(app, pilot, rounds="2", min_tps="30")  # another limit measures nothing anew
        await pilot.press("enter")
        await see(pilot, "Saved")
        again = its.begun[len(done) :]
        assert ("score", "int8") in again
        assert set(again).isdisjoint(set(done) - {("score", "int8")})
    last = saved(own)[-1]
    assert last.pick is not None and not last.pick.stopped


async def test_a_variant_that_fails_is_dropped(own: Path) -> None:
    its = workers(own)
    its.scripts["nf4"].loading_fails = Failed("out_of_memory", "the GPU [b]is[/b] full")
    app = app_of(own, its)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await form(app, pilot)
        await pilot.press("enter")
        await see(pilot, "Saved")
        await see(pilot, "Take int8")
        await see(pilot, "dropped")
        await see(pilot, "nf4: failed: nf4: the GPU [b]is[/b] full")


async def test_nothing_that_fits_is_said_with_its_reasons(own: Path) -> None:
    app = app_of(own, workers(own))
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await form(app, pilot, max_memory="1MiB")
        await pilot.press("enter")
        await see(pilot, "No variant meets the limits: at most 1")
        await see(pilot, "more than 1")
    assert not saved(own)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("max_memory", "much", "most memory: 'much' is not a size"),
        ("context", "16q", "at a context of: '16q' is not a number of tokens"),
        ("min_tps", "-1", "least tok/s: -1.0 is not in the range x>0"),
        ("max_drop", "2", "accuracy loss: '2' is not a share"),
        ("rounds", "1", "rounds: 1 is not in the range"),
        ("methods", "nf5", '"nf5" is not a quantization method'),
    ],
)
async def test_what_is_wrong_with_a_value_is_said(
    own: Path, name: str, value: str, said: str
) -> None:
    app = app_of(own, workers(own))
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await form(app, pilot, **{name: value})
        await pilot.press("enter")
        await see(pilot, said)
        await pilot.press("escape")
        await wait_until(pilot, lambda: isinstance(app.screen, StartScreen), "the start screen")


async def test_the_palette_begins_it(own: Path) -> None:
    app = app_of(own, workers(own))
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await see(pilot, "aaa your own")
        await pilot.press("ctrl+p")
        await wait_until(pilot, lambda: isinstance(app.screen, CommandPalette), "the palette")
        await pilot.press(*"frontier")  # a synonym
        await see(pilot, "Pick (p)")
        await pilot.press("enter")
        await wait_until(pilot, lambda: isinstance(app.screen, PickForm), "the form")


async def test_quitting_meanwhile_ends_the_program(own: Path) -> None:
    its = workers(own)
    its.hold["int8"] = asyncio.Event()
    app = app_of(own, its)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await form(app, pilot, rounds="2")
        await pilot.press("enter")
        await wait_until(pilot, lambda: ("score", "int8") in its.begun, "int8 is scored")
        assert "Esc: stop" in text(app)
        await pilot.press("ctrl+q")
    assert list((paths.cache_dir() / "picks").glob("*/state.json")), "it can be resumed"
