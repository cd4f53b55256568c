"""The start screen: profiles, recent snapshots, hardware; and then the comparison."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.saved_snapshots import scored
from fakes.screen_reader import lines, see, see_gone, text, wait_until
from fakes.scripted_app import SIZES, Setup
from fakes.scripted_machine import GPU, ScriptedMachine
from fakes.scripted_worker import Script, ScriptedMaker, starter
from quantchat import paths
from quantchat.app.app import QuantchatApp
from quantchat.app.screens.comparison import ComparisonScreen
from quantchat.profile.model import Profile
from quantchat.session.comparison import Comparison
from quantchat.snapshot import store

OWN = """
name = "My comparison"
description = "Of [red]two[/red]."
[[variants]]
label = "one"
engine = "gptq"
model = "some/model"
[[variants]]
label = "two"
engine = "bitsandbytes"
model = "some/model"
"""


def start(folder: Path) -> QuantchatApp:
    def compare(profile: Profile) -> Comparison:
        scripts = {variant.label: Script() for variant in profile.variants}
        return Comparison(profile, maker=ScriptedMaker(scripts), start=starter(scripts, folder))

    return QuantchatApp(
        None,
        snapshots=folder / "snapshots",
        make_comparison=compare,
        make_sampler=lambda: ScriptedMachine(GPU),
    )


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the user's with one good profile, one broken."""
    monkeypatch.chdir(tmp_path)
    folder = paths.config_dir() / "profiles"
    folder.mkdir(parents=True)
    (folder / "aaa.toml").write_text(OWN)
    (folder / "aab.toml").write_text("name = ")
    return folder


@pytest.mark.parametrize("size", [(66, 24), *SIZES])
@pytest.mark.usefixtures("own")
async def test_it_shows_profiles_hardware_and_that_nothing_was_saved(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    app = start(tmp_path)
    async with app.run_test(size=size, notifications=True) as pilot:
        for expected in (
            "aaa your own",
            "My comparison",
            "Of [red]two[/red].",
            "gptq · some/model",
            "aab invalid",
            "demo shipped",
            "none yet",
            "RTX 4090",
            "24.0 GiB",
        ):
            await see(pilot, expected)


@pytest.mark.usefixtures("own")
async def test_a_broken_profile_says_what_is_wrong(tmp_path: Path) -> None:
    app = start(tmp_path)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await see(pilot, "aab invalid")
        await pilot.press("down")
        await see(pilot, "invalid value")
        await pilot.press("enter")
        await wait_until(pilot, lambda: any("▌" in line for line in lines(app)), "a notification")
        assert not isinstance(app.screen, ComparisonScreen)


@pytest.mark.usefixtures("own")
async def test_enter_opens_the_comparison(tmp_path: Path) -> None:
    app = start(tmp_path)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await see(pilot, "aaa your own")
        await pilot.press("enter")
        await wait_until(pilot, lambda: isinstance(app.screen, ComparisonScreen))
        await see(pilot, "● ready")
        await see_gone(pilot, "Recent snapshots")
        await pilot.press(*"hi", "enter")
        await see(pilot, "The capital of France is Paris.")


async def test_what_a_snapshot_is_the_result_of_stands_beside_it(setup: Setup) -> None:
    store.save(scored(), setup.folder / "snapshots")
    async with start(setup.folder).run_test(size=(40, 20)) as pilot:
        await see(pilot, f"{scored().created[:16].replace('T', ' ')} score")


async def test_a_snapshot_can_be_looked_at(setup: Setup) -> None:
    setup.left.answer = lambda request: "evil \x1b[31m [b]x[/b]"
    async with setup.running() as run:
        await run.ready()
        await run.answered()
        await run.pilot.press("ctrl+s")
        await see(run.pilot, "Snapshot saved")
    (setup.folder / "snapshots" / "00000000T000000Z-broken.json").write_text("{")
    app = start(setup.folder)
    async with app.run_test(size=(120, 60), notifications=True) as pilot:
        await see(pilot, "a comparison GPTQ 4-bit | NF4 double 1 turn")
        await see(pilot, "00000000T000000Z-broken.json")
        await pilot.press("tab", "enter")
        await see(pilot, "What ran")
        await pilot.press("end")
        await see(pilot, "evil ␛[31m [b]x[/b]")
        await pilot.press("escape")
        await see_gone(pilot, "What ran")
        await pilot.press("down", "enter")
        await see(pilot, "cut short")
        assert "What ran" not in text(app)
