"""The list of snapshots: as lines (Rich), and as one JSON document."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from quantchat.document.figures import plural, when
from quantchat.snapshot.recovered import is_recovered
from quantchat.snapshot.store import Listed
from quantchat.text import one_line

_SAVED = len("2026-11-03 14:25 +0100")
_KIND = len("measurement")


def render(listed: Iterable[Listed]) -> Group:
    """Each snapshot with what it is below its name, or with its problem and the cure.

    Names are typed again, or copied: each stands on a line of its own, which is never broken, also
    where it is longer than the terminal is wide; so print it without cropping.
    """
    parts: list[RenderableType] = []
    for line in listed:
        name = Text(one_line(line.path.name), style="bold", no_wrap=True, overflow="ignore")
        told = _broken(line) if line.problem else _told(line)
        parts += [name, Padding(told, (0, 0, 0, 2))]
    return Group(*parts)


def document(folder: Path, listed: Iterable[Listed]) -> dict[str, Any]:
    """The same as plain JSON values; text is raw, as it was recorded."""
    return {
        "folder": str(folder),
        "snapshots": [
            {
                "file": line.path.name,
                "kind": line.kind,
                "created": line.created,
                "name": line.name,
                "shown": line.variants,
                "turns": line.turns,
                "recovered": is_recovered(line.path),
                "problem": line.problem,
                "cure": line.cure,
            }
            for line in listed
        ],
    }


def _told(line: Listed) -> Text:
    shown = " | ".join(one_line(label) for label in line.variants)
    text = Text(f"{one_line(when(line.created)):{_SAVED}}  {line.kind:{_KIND}}  ")
    if is_recovered(line.path):
        text.append("recovered  ", style="yellow")
    text.append(f"{one_line(line.name)}: {shown}")
    return text.append(f", {plural(line.turns, 'turn')}" if line.turns else "")


def _broken(line: Listed) -> Text:
    cure = f" ({line.cure})" if line.cure else ""
    return Text(f"{one_line(line.problem)}{cure}", style="red")
