"""The user's preferences: `preferences.toml` in the config folder, checked like a profile."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from quantchat import paths
from quantchat.app.commands import COMMANDS
from quantchat.engines.table import Table
from quantchat.errors import UserError
from quantchat.files import write_whole
from quantchat.profile.field_docs import DescribedSchema
from quantchat.profile.load import profile_error, read_text, validate
from quantchat.profile.mistakes import Mistake, as_toml
from quantchat.profile.model import Generation, Profile
from quantchat.profile.nearest import did_you_mean
from quantchat.profile.schema import DIALECT
from quantchat.profile.toml_text import KeyLines

_KEY = re.compile(r"(?:ctrl\+|alt\+|shift\+)*[a-z0-9_]+")
"""A key by Textual's name."""
_WRITES_CHARACTER = re.compile(r"(?:shift\+)?(?:[a-z0-9]|space)")
"""Keys that write a character into the prompt."""
_RESERVED = frozenset(
    f"{modifier}{key}"
    for modifier, keys in (
        ("", ("left", "right", "home", "end", "backspace", "delete", "tab")),
        ("ctrl+", "abcdehikmuvwxyz"),
        ("alt+", "bf"),
    )
    for key in keys
)
"""Keys that no command may take: they edit the prompt, or a multiplexer or terminal uses them, or
a terminal cannot distinguish them from other keys."""


class Preferences(Table):
    """What the user prefers, for all comparisons."""

    theme: Literal["dark", "light", "high contrast"] = "dark"
    """Colours of the screen. F11 changes them and writes this key."""
    low_bandwidth: bool | None = None
    """`true`, like the option `--low-bandwidth`: draw an answer once a second, and leave the mouse
    to the terminal. `false`: draw at the full rate, over SSH too. Not set: at the full rate in a
    local terminal, four times a second over SSH."""
    history: bool = True
    """Whether prompts are remembered for the next start (↑ recalls them)."""
    keys: dict[str, str] = Field({})
    """Keys of commands, by the commands' names: `measure = "f5"`. Commas separate several keys."""
    generation: Generation = Generation.model_construct()
    """Sampling and length of answers on the screen, for settings that the profile does not have."""

    def apply_to(self, profile: Profile) -> Profile:
        """Return `profile` with these generation settings where it has none of its own."""
        given = profile.generation.model_fields_set
        ours = {
            key: getattr(self.generation, key)
            for key in self.generation.model_fields_set
            if key not in given
        }
        generation = profile.generation.model_copy(update=ours)
        return profile.model_copy(update={"generation": generation}) if ours else profile


def load() -> Preferences:
    """Return the preferences of the user's file. Raises ProfileError with each mistake's line."""
    path = paths.preferences_file()
    text = read_text(path)
    found = validate(text, str(path), Preferences)
    if wrong := list(_wrong_keys(found.keys)):
        raise profile_error(wrong, str(path), text)
    return found


def json_schema() -> dict[str, object]:
    """Return the JSON Schema (draft 2020-12) of the file, with the names of all commands."""
    described = Preferences.model_json_schema(schema_generator=DescribedSchema)
    described["properties"]["keys"]["propertyNames"] = {"enum": [one.id for one in COMMANDS]}
    return {"$schema": DIALECT, **described, "title": "quantchat preferences"}


def save_theme(name: str) -> None:
    """Write the theme into the user's file and leave its other lines as they are.

    Raises UserError if it cannot be read or written.
    """
    path = paths.preferences_file()
    text = read_text(path) if path.is_file() else ""
    line = KeyLines(text).find(("theme",))
    lines = text.splitlines(keepends=True)
    lines[(line or 1) - 1 : line or 0] = [f'theme = "{name}"\n']
    try:
        paths.private(path.parent)
        write_whole(path, "".join(lines).encode())
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", where=str(path)) from error


def _wrong_keys(keys: dict[str, str]) -> Iterator[Mistake]:
    """Yield what is wrong with the table `keys`."""
    bound = {one.id: one.keys for one in COMMANDS} | {
        name: ",".join(_split(names)) for name, names in keys.items()
    }
    for name, names in keys.items():
        path = ("keys", name)
        if name not in {one.id for one in COMMANDS}:
            ids = [one.id for one in COMMANDS]
            hint = did_you_mean(name, ids) or f"known: {', '.join(ids)}"
            yield Mistake(path, "no command has this name", hint)
            continue
        for key in _split(names):
            if not _KEY.fullmatch(key):
                yield Mistake(
                    path, f"{as_toml(key)} is not a key", "such as ctrl+t, alt+t, f5, escape"
                )
            elif _WRITES_CHARACTER.fullmatch(key) or key in _RESERVED:
                yield Mistake(
                    path,
                    f"{as_toml(key)} is reserved: it edits the prompt, or a terminal uses it",
                    "",
                )
            elif taken := [n for n, its in bound.items() if n != name and key in _split(its)]:
                hint = f"give {taken[0]} another key"
                yield Mistake(path, f"{as_toml(key)} is the key of {taken[0]} as well", hint)


def _split(names: str) -> list[str]:
    return [name.strip() for name in names.lower().split(",")]
