"""The user's preferences and prompt history, on the screen and as files."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.screen_reader import see, text, wait_until
from fakes.scripted_app import SIZES, Setup
from quantchat import paths
from quantchat.app import preferences, themes
from quantchat.app.commands import COMMANDS, use_keys
from quantchat.app.preferences import Preferences
from quantchat.app.prompt_history import MAX_RECALLED, PromptHistory
from quantchat.app.screens.settings import SettingsScreen
from quantchat.profile.load import ProfileError
from quantchat.profile.model import Generation
from quantchat.wire.messages import Generate


@pytest.fixture(autouse=True)
def _usual_keys() -> Iterator[None]:
    yield
    use_keys({})


def write(body: str) -> Path:
    path = paths.preferences_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(body)
    return path


# ------------------------------------------------------------ the file


def test_the_file_is_read() -> None:
    write(
        'theme = "light"\nlow_bandwidth = true\nhistory = false\n'
        '[keys]\nmeasure = "shift+f12"\n[generation]\ntemperature = 0.7\n'
    )
    found = preferences.load()
    assert (found.theme, found.low_bandwidth, found.history) == ("light", True, False)
    assert found.keys == {"measure": "shift+f12"} and found.generation.temperature == 0.7


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('theme = "drak"', ':1: theme: "drak" is not one of dark, light, high contrast (did you'),
        ("\nthem = 1", ':2: them: unknown key (did you mean "theme"?)'),
        ("[generation]\ntemperature = 11.0", ":2: generation.temperature: 11.0 is out of range"),
        ("temperature = 0.5", ":1: temperature: unknown key (it belongs in [generation])"),
        ("low_bandwidth = 1", ":1: low_bandwidth: must be true or false, not 1"),
        ('[keys]\nmesure = "f5"', ':2: keys.mesure: no command has this name (did you mean "mea'),
        ('[keys]\nmeasure = "f5"', ':2: keys.measure: "f5" is the key of copy_left as well'),
        ('[keys]\nsave = "q"', ':2: keys.save: "q" is reserved: it edits the prompt'),
        ('[keys]\nsave = "ctrl+k"', ':2: keys.save: "ctrl+k" is reserved: it edits the prompt'),
        ('[keys]\nsave = "Strg-S"', ':2: keys.save: "strg-s" is not a key (such as ctrl+t'),
        ("theme =", ":1: "),
    ],
)
def test_a_mistake_is_one_line_with_its_place(body: str, said: str) -> None:
    path = write(body)
    with pytest.raises(ProfileError) as error:
        preferences.load()
    assert str(error.value).startswith(f"{path}{said}")
    assert len(error.value.lines) == 1


def test_the_schema_names_each_command() -> None:
    schema = preferences.json_schema()
    properties = schema["properties"]
    assert isinstance(properties, dict)
    assert properties["keys"]["propertyNames"] == {"enum": [one.id for one in COMMANDS]}
    assert properties["theme"]["enum"] == [theme.name for theme in themes.THEMES]
    assert all(properties[key]["description"] for key in Preferences.model_fields)


def test_the_example_of_the_documentation_is_valid() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "screen.md").read_text("utf-8")
    write(page.partition("```toml\n")[2].partition("```")[0])
    assert preferences.load().keys["newline"] == "enter"


def test_two_commands_can_exchange_their_keys() -> None:
    write('[keys]\ncopy_left = "f6"\ncopy_right = "f5"')
    assert preferences.load().keys == {"copy_left": "f6", "copy_right": "f5"}


def test_the_themes_that_can_be_preferred_are_those_there_are() -> None:
    for theme in themes.THEMES:
        write(f'theme = "{theme.name}"')
        assert preferences.load().theme == theme.name


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, 'theme = "light"\n'),
        ("# mine\nhistory = false\n", "# mine\nhistory = false\n"),
        ('# mine\ntheme = "dark" # best\n[keys]\n', '# mine\ntheme = "light"\n[keys]\n'),
        ('[keys]\nsave = "f5"\n', 'theme = "light"\n[keys]\nsave = "f5"\n'),
    ],
)
def test_a_theme_is_written_and_the_rest_stays(before: str | None, after: str) -> None:
    if before is not None:
        write(before)
    preferences.save_theme("light")
    written = paths.preferences_file().read_text()
    assert sorted(written.splitlines()) == sorted({*after.splitlines(), 'theme = "light"'})
    assert 'theme = "light"' in written.partition("[")[0]


def test_what_a_profile_gives_is_not_replaced(setup: Setup) -> None:
    ours = Preferences(generation=Generation(temperature=0.7, top_k=40))
    profile = setup.profile.model_copy(update={"generation": Generation(top_k=5)})
    assert ours.apply_to(profile).generation.temperature == 0.7
    assert ours.apply_to(profile).generation.top_k == 5
    assert Preferences().apply_to(profile) is profile


# ------------------------------------------------------------ on the screen


@pytest.mark.parametrize("size", SIZES[:2])
async def test_keys_of_the_user_work_and_are_shown(setup: Setup, size: tuple[int, int]) -> None:
    setup.preferences = Preferences(keys={"settings": "shift+f3", "help": "f2"})
    async with setup.running(size) as run:
        await run.ready()
        assert "F2 help" in text(run.app)
        await run.pilot.press("shift+f3")
        await wait_until(run.pilot, lambda: isinstance(run.app.screen, SettingsScreen), "settings")
        await run.pilot.press("escape")
        await wait_until(run.pilot, lambda: run.app.screen is run.screen, "closed")
        await run.pilot.press("f2")
        await see(run.pilot, "Send the prompt to both variants")
        await run.pilot.press(*["pagedown"] * (size[1] < 40))
        await see(run.pilot, "Shift+F3 System prompt and sampling settings")
        await run.pilot.press("escape")
        await wait_until(run.pilot, lambda: run.app.screen is run.screen, "closed")
        await run.pilot.press("f1")
        assert run.app.screen is run.screen


async def test_each_command_can_get_another_key(setup: Setup) -> None:
    """The prompt box has the focus, and its own bindings come first."""
    setup.preferences = Preferences(keys={one.id: f"shift+f{n}" for n, one in enumerate(COMMANDS)})
    async with setup.running() as run:
        await run.ready()
        for one in COMMANDS:
            bound = run.app.active_bindings.get(one.keys)
            assert one.id == "send" or (bound and bound.binding.id == one.id), one.id


async def test_enter_can_start_a_line_and_another_key_send(setup: Setup) -> None:
    setup.preferences = Preferences(keys={"send": "alt+enter", "newline": "enter"})
    async with setup.running() as run:
        await run.ready()
        await run.pilot.press("a", "enter", "b")
        assert run.screen.prompt.text == "a\nb"
        await run.pilot.press("alt+enter")
        await wait_until(run.pilot, lambda: run.comparison.last_turn, "a turn")
        assert run.comparison.last_turn and run.comparison.last_turn.prompt == "a\nb"


async def test_quit_can_get_another_key(setup: Setup) -> None:
    setup.preferences = Preferences(keys={"quit": "shift+f4"})
    async with setup.running() as run:
        await run.ready()
        await run.pilot.press("ctrl+q")
        assert run.app.is_running and not run.app._exit
        await run.pilot.press("shift+f4")
        await wait_until(run.pilot, lambda: run.app._exit, "the end")


async def test_a_theme_is_remembered(setup: Setup) -> None:
    async with setup.running() as run:
        await run.ready()
        await run.pilot.press("f11")
        await wait_until(run.pilot, paths.preferences_file().is_file, "the file")
    setup.preferences = preferences.load()
    async with setup.running() as run:
        assert run.app.theme == "light"


async def test_a_theme_that_cannot_be_saved_is_used_all_the_same(setup: Setup) -> None:
    paths.config_dir().parent.mkdir(parents=True, exist_ok=True)
    paths.config_dir().write_text("a file where the folder should be")
    async with setup.running() as run:
        await run.ready()
        await run.pilot.press("f11")
        await see(run.pilot, "Theme not saved")
        assert run.app.theme == "light"


async def test_generation_of_the_user_is_sent(setup: Setup) -> None:
    setup.preferences = Preferences(generation=Generation(temperature=0.7))
    async with setup.running() as run:
        await run.ready()
        await run.answered()
        (request,) = [c for c in run.left.commands if isinstance(c, Generate)]
        assert request.sampling.temperature == 0.7


# ------------------------------------------------------------ prompts of earlier sessions


async def test_prompts_survive_a_restart(setup: Setup) -> None:
    async with setup.running() as run:
        await run.ready()
        await run.answered("Where is\nParis?")
        await run.answered("And Rome?")
        file = paths.logs_dir() / "prompts.jsonl"
        await wait_until(run.pilot, lambda: len(file.read_text().splitlines()) == 2, "two lines")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    async with setup.running() as run:
        await run.ready()
        await wait_until(run.pilot, lambda: len(run.screen.prompt._sent) == 2, "the history")
        await run.pilot.press(*"draft", "up")
        assert run.screen.prompt.text == "And Rome?"
        await run.pilot.press("up")
        assert run.screen.prompt.text == "Where is\nParis?"
        await run.pilot.press("down", "down", "down")
        assert run.screen.prompt.text == "draft"


async def test_without_history_nothing_is_written(setup: Setup) -> None:
    setup.preferences = Preferences(history=False)
    async with setup.running() as run:
        await run.ready()
        await run.answered()
    assert not (paths.logs_dir() / "prompts.jsonl").exists()


async def test_a_damaged_history_gives_what_can_be_read(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_bytes(b'ut off"\n"one"\n{"a": 1}\n\xff\n""\n"two"\n')
    assert await PromptHistory(file).read() == ["one", "two"]
    file.write_text("".join(f'"{n}"\n' for n in range(MAX_RECALLED + 5)))
    read = await PromptHistory(file).read()
    assert len(read) == MAX_RECALLED and read[-1] == str(MAX_RECALLED + 4)
    assert await PromptHistory(tmp_path).read() == []
    assert await PromptHistory(tmp_path / "none").read() == []
