"""Messages from widgets and the comparison to the screen, named in the past tense."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.message import Message

if TYPE_CHECKING:
    from quantchat.measuring.rounds import Plan
    from quantchat.profile.model import Profile
    from quantchat.session.comparison import Change
    from quantchat.snapshot.schema import Snapshot


@dataclass
class ComparisonChanged(Message):
    """The comparison reported a change; it is drawn at once instead of at the next tick."""

    change: Change


@dataclass
class PromptSent(Message):
    """The user sent `text` with Enter in the prompt box."""

    text: str


@dataclass
class ScrollRequested(Message):
    """The user scrolled the conversation by `pages` (negative is up) from the prompt box."""

    pages: int


@dataclass
class LinkClicked(Message):
    """The user clicked a link in an answer; its address is shown, never opened."""

    href: str


@dataclass
class CommandChosen(Message):
    """The user clicked a command in the key line."""

    id: str


@dataclass
class ProfileChosen(Message):
    """The user opened `profile` on the start screen.

    `pair` has the indices of the left and the right variant in the profile. `plan` is measured as
    soon as both are ready. The conversation of the snapshot `chat` is continued.
    """

    profile: Profile
    pair: tuple[int, int] = (0, 1)
    plan: Plan | None = None
    chat: Snapshot | None = None
