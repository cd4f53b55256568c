"""Finding profiles by name; a name never leads outside the profile folders."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import quantchat
from quantchat.errors import UserError
from quantchat.profile import library
from quantchat.profile.library import Origin
from quantchat.profile.template import template


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[Origin, Path]:
    """The three folders, empty, below a temporary one that is the working folder."""
    package = tmp_path / "site-packages" / "quantchat"
    made = {
        Origin.HERE: tmp_path / "profiles",
        Origin.OWN: tmp_path / "config" / "profiles",
        Origin.SHIPPED: package / "shipped",
    }
    for folder in made.values():
        folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QUANTCHAT_CONFIG", str(tmp_path / "config"))
    monkeypatch.setattr(quantchat, "__file__", str(package / "__init__.py"))
    return made


def put(folder: Path, name: str, text: str = "") -> Path:
    file = folder / f"{name}.toml"
    file.write_text(text or template().replace("My comparison", f"{name} of {folder.name}"))
    return file


def test_the_first_folder_wins(folders: dict[Origin, Path]) -> None:
    for folder in folders.values():
        put(folder, "everywhere")
    put(folders[Origin.OWN], "two")
    put(folders[Origin.SHIPPED], "two")
    put(folders[Origin.SHIPPED], "one")
    assert [(entry.name, entry.origin) for entry in library.entries()] == [
        ("everywhere", Origin.HERE),
        ("two", Origin.OWN),
        ("one", Origin.SHIPPED),
    ]
    for entry in library.entries():
        assert library.find(entry.name) == entry.path
        assert entry.path.parent.absolute() == folders[entry.origin]


def test_a_checkout_ships_the_profiles_at_its_root() -> None:
    assert (library.folder(Origin.SHIPPED) / "demo.toml").is_file()


def test_folders_need_not_exist(folders: dict[Origin, Path]) -> None:
    folders[Origin.HERE].rmdir()
    folders[Origin.OWN].rmdir()
    put(folders[Origin.SHIPPED], "one")
    assert library.names() == ["one"]


def test_a_broken_profile_is_listed_with_its_error(folders: dict[Origin, Path]) -> None:
    put(folders[Origin.HERE], "broken", "name = ")
    put(folders[Origin.HERE], "good")
    (folders[Origin.HERE] / "folder.toml").mkdir()
    (folders[Origin.HERE] / ".hidden.toml").touch()
    (folders[Origin.HERE] / "notes.txt").touch()
    broken, folder, good = library.entries()
    assert broken.profile is None
    assert str(broken.error).startswith("profiles/broken.toml:1: invalid value")
    assert str(folder.error) == "profiles/folder.toml: cannot be read: it is a folder"
    assert good.error is None
    assert good.profile is not None
    assert good.profile.name == "good of profiles"


@pytest.mark.parametrize(
    ("word", "path"),
    [
        ("./demo", "demo"),
        ("demo.toml", "demo.toml"),
        ("../demo.toml", "../demo.toml"),
        ("~/demo.toml", "/home/someone/demo.toml"),
    ],
)
def test_paths(word: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert library.find(word) == Path(path)


def test_an_unknown_name_gets_near_ones(folders: dict[Origin, Path]) -> None:
    put(folders[Origin.SHIPPED], "llama-2-7b-chat")
    put(folders[Origin.HERE], "llama-2-13b-chat")
    with pytest.raises(UserError) as caught:
        library.find("llama-2-chat")
    assert str(caught.value) == (
        'no profile is called "llama-2-chat"'
        ' (did you mean "llama-2-7b-chat" or "llama-2-13b-chat"?)'
    )
    with pytest.raises(UserError, match="`quantchat profiles` lists them"):
        library.find("zzz")


def test_an_unknown_name_may_have_meant_a_command(folders: dict[Origin, Path]) -> None:
    with pytest.raises(UserError) as caught:
        library.find("profils", others=["profiles", "schema"])
    assert str(caught.value) == (
        'no profile or command is called "profils" (did you mean "profiles"?)'
    )


def test_a_file_of_that_name_is_pointed_at(folders: dict[Origin, Path]) -> None:
    Path("mine").touch()
    with pytest.raises(UserError, match=r"there is a file of this name: \./mine"):
        library.find("mine")


ODD_WORDS = ["..", ".", "", "\0", "~", "~x", "*", "profiles/../one", "n" * 300]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    word=st.text()
    | st.sampled_from(["..", ".", "", "\0", "~", "~x", "*", "profiles/../x", "n" * 300])
)
def test_a_word_is_a_profile_a_path_or_a_complaint(folders: dict[Origin, Path], word: str) -> None:
    put(folders[Origin.SHIPPED], "one")
    try:
        found = library.find(word)
    except UserError:
        return
    is_name = "/" not in word and not word.endswith(".toml") and word != "~"
    assert not is_name or found.parent == folders[Origin.SHIPPED]
