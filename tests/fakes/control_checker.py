"""A pseudo-terminal that checks each control it receives, and draws none of them."""

from __future__ import annotations

import os
import select
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set

from fakes.hostile_text import SEQUENCES, named
from fakes.terminal import Terminal
from fakes.terminal_controls import Tokens
from quantchat.text import neutralise

SYNCHRONIZED = "\x1b[?2026$p"
"""Asks whether the terminal can hold back a frame until it is whole; this one says yes."""


class Listener(Terminal):
    """Fails as soon as it receives a hostile payload, or a control that is not `allowed`."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        allowed: Set[str],
        columns: int,
        rows: int,
        env: Mapping[str, str],
    ) -> None:
        super().__init__(command, columns=columns, rows=rows, env=env)
        self.allowed = allowed
        self.drawn = ""
        """Text; what begins elsewhere than where the last piece ended begins a line."""
        self.seen: set[str] = set()
        """The names of payloads that were drawn, since `forget`."""
        self.controls: Counter[str] = Counter()
        """How often each control came."""
        self._tokens = Tokens()

    def forget(self) -> None:
        """Forget what was drawn."""
        self.drawn = ""
        self.seen.clear()

    @property
    def text(self) -> str:
        """The last 3000 characters of what was drawn."""
        return self.drawn[-3000:]

    @property
    def pending(self) -> str:
        """The beginning of an incomplete control."""
        return self._tokens.pending

    def wait_for_payloads(self, wanted: Set[str], condition: Callable[[], bool]) -> None:
        """Read until all payloads of `wanted` were drawn as text and `condition` is true."""
        try:
            self.wait_for(lambda: wanted <= self.seen and condition(), "payloads as text")
        except AssertionError as error:
            missing = sorted(wanted - self.seen)
            raise AssertionError(f"of {len(wanted)} not drawn: {missing[:20]}\n{error}") from None

    def read(self, timeout_s: float = 0.05) -> bool:
        """Read and check what the program wrote; return False once it has closed the terminal."""
        ready, _, _ = select.select([self._fd], [], [], timeout_s)
        if not ready:
            return True
        try:
            data = os.read(self._fd, 1 << 20)
        except OSError:  # EIO: the other end is gone
            return False
        drawn = self.drawn[-16:]
        for token in self._tokens.feed(data):
            if token.kind == "text":
                assert neutralise(token.raw) == token.raw, f"not neutral: {token.raw!r}"
                drawn += token.raw
                continue
            self._judge(token.raw, token.shape)
            if token.shape != "\x1b[m":
                drawn += "\n"
        assert not named(self.pending), f"a payload is in {self.pending!r}"
        self.seen |= named(drawn)
        self.drawn += drawn[len(self.drawn[-16:]) :]
        return bool(data)

    def _judge(self, raw: str, shape: str) -> None:
        assert not named(raw), f"a payload is in the control {raw!r}"
        assert shape in self.allowed, f"not the program's own: {raw!r}, after {self.text[-300:]!r}"
        assert raw not in SEQUENCES or raw in self.allowed, f"a payload's: {raw!r}"
        self.controls[shape] += 1
        if raw == SYNCHRONIZED:
            self.type("\x1b[?2026;2$y")
