"""The start screen: profiles, recent snapshots, hardware, and opening a comparison."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from textual.widgets import OptionList

from fakes.saved_measurement import measured
from fakes.saved_snapshots import scored, snapshot
from fakes.screen_reader import lines, see, see_gone, text, wait_until
from fakes.scripted_app import SIZES, Setup
from fakes.scripted_machine import GIB, GPU, ScriptedMachine
from fakes.scripted_worker import Script, ScriptedProvider, starter
from quantchat import paths
from quantchat.app.app import QuantchatApp
from quantchat.app.screens.comparison import ComparisonScreen
from quantchat.app.screens.saved_list import SavedList
from quantchat.app.screens.snapshot import ComparedScreen, DeleteScreen
from quantchat.profile.model import Profile
from quantchat.session.comparison import Comparison
from quantchat.snapshot import store
from quantchat.system.gpus import GpuSample

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


def start(folder: Path, *gpus: GpuSample) -> QuantchatApp:
    def compare(profile: Profile) -> Comparison:
        scripts = {variant.label: Script() for variant in profile.variants}
        return Comparison(
            profile, provider=ScriptedProvider(scripts), start=starter(scripts, folder)
        )

    return QuantchatApp(
        None,
        snapshots=folder / "snapshots",
        make_comparison=compare,
        make_sampler=lambda: ScriptedMachine(*(gpus or (GPU,))),
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


# ------------------------------------------------------------ what fits here


def highlighted(app: QuantchatApp) -> str:
    """Return the name of the highlighted profile."""
    profiles = app.screen.query_one("#profiles", OptionList)
    assert profiles.highlighted is not None
    prompt = profiles.get_option_at_index(profiles.highlighted).prompt
    return str(prompt)[2:].split()[0]


@pytest.mark.parametrize("size", SIZES[:2])
async def test_each_profile_says_whether_it_fits_and_what_it_downloads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.13.0")  # built with CUDA
    app = start(tmp_path, replace(GPU, memory_used=12 * GIB))
    async with app.run_test(size=size, notifications=True) as pilot:
        await see(pilot, "✓ llama-2-7b-chat")
        await see(pilot, "✗ nf4-vs-bf16")
        await see(pilot, "✓ fits: needs")
        await see(pilot, "downloads 0.1 GB:")
        await see(pilot, "quantizes GPTQ 4-bit on this machine first")
        await pilot.press(*["down"] * 3)
        await see(pilot, "downloads about 3.9 GB:")
        await see(pilot, "needs about 8.1 GiB; GPU 0 (NVIDIA")


async def test_the_demo_is_preselected_where_no_gpu_fits_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    app = start(tmp_path)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await see(pilot, "✗ nf4-vs-fp4")
        assert highlighted(app) == "demo"


@pytest.mark.usefixtures("own")
async def test_a_profile_of_the_user_is_preselected_unless_it_does_not_fit(
    tmp_path: Path, own: Path
) -> None:
    app = start(tmp_path)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await see(pilot, "? aaa")
        assert highlighted(app) == "aaa"
    (own / "aab.toml").unlink()
    (own / "aaa.toml").write_text(OWN.replace("some/model", "some/model-70b"))
    app = start(tmp_path)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await see(pilot, "✗ aaa")
        await wait_until(pilot, lambda: highlighted(app) == "demo", "the demo is highlighted")


async def test_the_highlight_of_the_user_does_not_move(tmp_path: Path, own: Path) -> None:
    (own / "aaa.toml").write_text(OWN.replace("some/model", "some/model-70b"))
    machine = ScriptedMachine(GPU)
    machine.answers.clear()
    app = QuantchatApp(None, snapshots=tmp_path / "s", make_sampler=lambda: machine)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await see(pilot, "aab invalid")
        await pilot.press("down", "up")
        machine.answers.set()
        await see(pilot, "✗ nf4-vs-fp4")
        assert highlighted(app) == "aaa"


# ------------------------------------------------------------ what is saved


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return the files of two measurements of the variants A and B, the newest first."""
    monkeypatch.chdir(tmp_path)
    once = measured(tmp_path)
    for hour in ("14", "15"):
        again = once.model_copy(update={"created": f"2026-11-03T{hour}:00:00+01:00"})
        store.save(again, tmp_path / "snapshots")
    return store.newest(tmp_path / "snapshots")


async def test_marked_snapshots_are_compared(tmp_path: Path, saved: list[Path]) -> None:
    app = start(tmp_path)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await see(pilot, "2026-11-03 15:00 measurement")
        await pilot.press("tab", "c")
        await see(pilot, "mark two or more snapshots with Space")
        await pilot.press("space", "space", "c")
        await wait_until(pilot, lambda: isinstance(app.screen, ComparedScreen), "compared")
        await see(pilot, f"Run 1 {saved[-1].name}")
        await pilot.press("end")
        await see(pilot, "c ÷ a")


async def test_a_report_is_written_beside_the_snapshots(tmp_path: Path, saved: list[Path]) -> None:
    app = start(tmp_path)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await see(pilot, "2026-11-03 15:00 measurement")
        await pilot.press("tab", "r")
        await see(pilot, "Report written")
        assert "<html" in saved[0].with_suffix(".html").read_text()
        await pilot.press("space", "space", "r")
        both = saved[1].with_name(f"{saved[1].stem}-and-1-more.html")
        await wait_until(pilot, both.exists, "the report of both")


async def test_a_measurement_is_repeated(tmp_path: Path, saved: list[Path]) -> None:
    app = start(tmp_path)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await see(pilot, "2026-11-03 15:00 measurement")
        await pilot.press("tab", "m")
        await see(pilot, "Measured")
        await see(pilot, "decode throughput")
        (again,) = set(store.newest(tmp_path / "snapshots")) - set(saved)
        record, before = store.load(again).measurement, store.load(saved[0]).measurement
        assert record and before and record.tasks == before.tasks


async def test_a_chat_is_continued(tmp_path: Path) -> None:
    folder = tmp_path / "snapshots"
    variants = [
        {"label": label, "engine": "bitsandbytes", "model": "m"} for label in ("GPTQ", "NF4")
    ]
    body = Profile.model_validate({"name": "p", "variants": variants}).model_dump(mode="json")
    store.save(snapshot(profile=body), folder)
    app = start(tmp_path)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await see(pilot, "2026-11-03 14:25")
        await pilot.press("tab")
        await wait_until(pilot, lambda: isinstance(app.focused, SavedList), "the list's focus")
        await pilot.press("n")
        await wait_until(pilot, lambda: isinstance(app.screen, ComparisonScreen), "the chat")
        screen = app.screen
        assert isinstance(screen, ComparisonScreen)
        await wait_until(pilot, lambda: screen.comparison.conversation.turns, "its turns")


async def test_what_a_snapshot_would_run_is_not_trusted(tmp_path: Path, saved: list[Path]) -> None:
    snapshot = store.load(saved[0])
    profile = Profile.model_validate(snapshot.profile)
    elsewhere = [variant.model_copy(update={"env": "other"}) for variant in profile.variants]
    body = profile.model_copy(update={"variants": elsewhere}).model_dump(mode="json")
    saved[0].write_bytes(store.dumps(snapshot.model_copy(update={"profile": body})))
    app = start(tmp_path)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await see(pilot, "2026-11-03 15:00 measurement")
        await pilot.press("tab", "m")
        await see(pilot, "quantchat rerun --trust")
        assert not isinstance(app.screen, ComparisonScreen)


async def test_a_snapshot_is_deleted_after_a_question(tmp_path: Path, saved: list[Path]) -> None:
    newer, older = saved
    app = start(tmp_path)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await see(pilot, "2026-11-03 15:00 measurement")
        await pilot.press("tab", "delete")
        await wait_until(pilot, lambda: isinstance(app.screen, DeleteScreen), "the question")
        await pilot.press("escape")
        await wait_until(pilot, lambda: not isinstance(app.screen, DeleteScreen), "closed")
        assert newer.exists()
        await pilot.press("delete")
        await wait_until(pilot, lambda: isinstance(app.screen, DeleteScreen), "the question")
        await see(pilot, newer.name)
        await pilot.press("delete")
        await see_gone(pilot, "2026-11-03 15:00")
        await see(pilot, "2026-11-03 14:00")
        assert not newer.exists() and older.exists()


@pytest.mark.parametrize("size", SIZES[:2])
async def test_help_explains_the_start_screen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    monkeypatch.chdir(tmp_path)
    app = start(tmp_path)
    async with app.run_test(size=size, notifications=True) as pilot:
        await see(pilot, "demo shipped")
        await pilot.press("f1")
        await see(pilot, "Mark the snapshot for a comparison or report")
        await pilot.press("end")
        await see(pilot, "how much is downloaded when you open")
