"""Each kind of failure has a title above its reason."""

from __future__ import annotations

import typing

from quantchat.app.widgets.failure_note import TITLES
from quantchat.wire.messages import FailureKind

STOPPED = {"stopped"}
"""The user asked for it: no failure to show."""


def test_each_kind_of_failure_has_a_title() -> None:
    assert TITLES.keys() == set(typing.get_args(FailureKind)) - STOPPED
