"""What widgets and the comparison tell the screen, named in the past tense."""

from __future__ import annotations

from dataclasses import dataclass

from textual.message import Message

from quantchat.session.comparison import Change


@dataclass
class ComparisonChanged(Message):
    """The comparison told of a change that is drawn at once, not polled."""

    change: Change


@dataclass
class PromptSent(Message):
    """Enter was pressed in the prompt box, which still holds `text`."""

    text: str


@dataclass
class ScrollAsked(Message):
    """The conversation is to be scrolled by `pages` (negative is up) without leaving the prompt."""

    pages: int


@dataclass
class LinkClicked(Message):
    """A link in an answer was clicked: it is named, and never opened."""

    href: str


@dataclass
class CommandChosen(Message):
    """A command of the key line was clicked."""

    id: str
