"""A share that hangs freezes neither the start screen nor a dialog that reads or removes a file."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from textual.widgets import OptionList

from fakes.saved_snapshots import snapshot
from fakes.screen_reader import see, see_gone, text, wait_until
from fakes.scripted_app import Setup
from fakes.scripted_machine import ScriptedMachine
from quantchat.app.app import QuantchatApp
from quantchat.app.screens import start
from quantchat.measuring import fit_here
from quantchat.session import prompts
from quantchat.snapshot import recovered, store

PATIENCE_S = 0.05
NAME = "Demo: GPTQ / NF4"
SILENT = "the disk did not answer"


class Share:
    """A share whose `answers` are awaited by the functions that use it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.answers = threading.Event()

    def hangs_in(self, owner: object, name: str) -> None:
        """Let the function `name` of `owner` wait for the share."""
        real = getattr(owner, name)

        def late(*args: object, **more: object) -> object:
            self.answers.wait()
            return real(*args, **more)

        self._monkeypatch.setattr(owner, name, late)


@pytest.fixture
def share(monkeypatch: pytest.MonkeyPatch) -> Iterator[Share]:
    for module in ("saved_list", "recovered", "snapshot", "ask_file"):
        monkeypatch.setattr(f"quantchat.app.screens.{module}.DISK_WAIT_S", PATIENCE_S)
    share = Share(monkeypatch)
    yield share
    share.answers.set()


def app_of(folder: Path) -> QuantchatApp:
    return QuantchatApp(None, snapshots=folder, make_sampler=ScriptedMachine)


def focused(app: QuantchatApp) -> str | None:
    return app.focused.id if app.focused else None


async def test_the_list_of_snapshots_is_filled_when_its_share_answers(
    tmp_path: Path, share: Share
) -> None:
    store.save(snapshot(), tmp_path)
    share.hangs_in(store, "newest")
    app = app_of(tmp_path)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await see(pilot, "the disk does not answer yet")
        profiles = app.screen.query_one("#profiles", OptionList)
        before = profiles.highlighted
        await pilot.press("end")
        await wait_until(pilot, lambda: profiles.highlighted != before, "the key")
        await pilot.press("tab", "enter", "c", "r", "delete")  # nothing to act on
        share.answers.set()
        await see(pilot, NAME)
        assert "does not answer" not in text(app)


@pytest.mark.parametrize("key", ["enter", "r", "m", "n"])
async def test_a_snapshot_whose_share_hangs_is_not_waited_for(
    tmp_path: Path, share: Share, key: str
) -> None:
    store.save(snapshot(), tmp_path)
    app = app_of(tmp_path)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await see(pilot, NAME)
        share.hangs_in(store, "load")
        await pilot.press("tab", key, "tab")
        await wait_until(pilot, lambda: focused(app) == "profiles", "the next key")
        await see(pilot, SILENT)


async def test_a_snapshot_is_not_deleted_while_its_share_hangs(
    tmp_path: Path, share: Share
) -> None:
    path = store.save(snapshot(), tmp_path)
    share.hangs_in(Path, "unlink")
    app = app_of(tmp_path)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await see(pilot, NAME)
        await pilot.press("tab", "delete", "delete")
        await see(pilot, f"{path.name} cannot be deleted: {SILENT}")
        assert path.exists()


async def test_a_recovered_snapshot_is_decided_on_when_its_share_answers(
    tmp_path: Path, share: Share
) -> None:
    recovered.save(snapshot(), tmp_path)
    share.hangs_in(recovered, "keep")
    app = app_of(tmp_path)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await see(pilot, "Recovered: not saved before")
        await pilot.press("ctrl+s", "ctrl+s", "end")
        await see(pilot, SILENT)
        share.answers.set()
        await pilot.press("escape")
        await see_gone(pilot, "Recovered: not saved before")


async def test_models_on_a_share_that_hangs_are_not_known(
    tmp_path: Path, share: Share, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "CHECK_S", PATIENCE_S)
    share.hangs_in(fit_here, "opening_needs")
    app = app_of(tmp_path)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await see(pilot, SILENT)


async def test_a_file_of_prompts_on_a_share_that_hangs(setup: Setup, share: Share) -> None:
    file = setup.folder / "prompts.txt"
    file.write_text("Where?\n")
    share.hangs_in(prompts, "read")
    async with setup.running() as run:
        await run.ready()
        run.screen.action_ask_file()
        await see(run.pilot, "Send the prompts of a file")
        await run.pilot.press(*str(file), "enter")
        await see(run.pilot, SILENT)
        share.answers.set()
        await run.pilot.press("enter")
        await see(run.pilot, "The capital of France is Paris.")
