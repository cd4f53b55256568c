"""Tell a model's thoughts (its reasoning) from its answer.

Reasoning models write both into one output and put marks between them. Some marks are special
tokens, which vanish from decoded text, and a chat template wants neither marks nor thoughts in the
turns that came before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

PAIRS = {
    "<think>": "</think>",  # DeepSeek-R1, Qwen3, SmolLM3, GLM, MiniMax, …
    "[THINK]": "[/THINK]",  # Magistral
    "<|channel>thought": "<channel|>",  # Gemma 4
    "<|START_THINKING|>": "<|END_THINKING|>",  # Command A Reasoning
    "<seed:think>": "</seed:think>",  # Seed-OSS
    "◁think▷": "◁/think▷",  # Kimi
}
"""Marks that stand around the thoughts at the beginning of an output."""

CHANNEL, MESSAGE, START = "<|channel|>", "<|message|>", "<|start|>"
_ENDS = ("<|end|>", "<|return|>", "<|call|>", START, CHANNEL)
"""Marks of harmony (gpt-oss), whose messages name a channel each: analysis, commentary or final.
https://developers.openai.com/cookbook/articles/openai-harmony"""
_FINAL = "final"
_BREAK = "\n\n"
"""Between two messages of one kind."""

_HARMONY = (MESSAGE, *_ENDS)


class Splitter:
    """Splits an output that is fed in pieces into the answer and the thoughts.

    However it is cut into pieces, the parts join to the same two texts. `pairs` are the marks to
    look for, `channels` whether harmony's are among them. `opened`: the mark that ends the thoughts
    which the prompt itself began.
    """

    def __init__(
        self, pairs: Mapping[str, str] = PAIRS, *, channels: bool = False, opened: str = ""
    ) -> None:
        self._pairs = pairs
        self._channels = channels and not opened
        self._state = "part" if opened else "start"
        self._kind = "thoughts" if opened else "answer"
        """Of the part that goes on."""
        self._ends: tuple[str, ...] = (opened,) if opened else ()
        """Marks that end the part."""
        self._rest = ""
        """What may be the beginning of a mark, and waits for more."""
        self._bare = bool(opened)
        """Whether nothing but line breaks came since the last mark: they belong to no text."""
        self._has: set[str] = set()
        """The kinds that have any text."""
        self.marked = bool(opened)
        """Whether there were any marks."""

    @property
    def answering(self) -> bool:
        """Whether the answer goes on, or nothing has come yet."""
        return self._state != "header" and self._kind == "answer"

    def feed(self, text: str) -> tuple[str, str]:
        """What `text` adds to the answer, and what to the thoughts."""
        self._rest += text
        return self._take(last=False)

    def end(self) -> tuple[str, str]:
        """The same of what was held back, once nothing more comes."""
        return self._take(last=True)

    def _take(self, *, last: bool) -> tuple[str, str]:
        added = {"answer": "", "thoughts": ""}
        while self._rest:
            kind = self._kind
            step = self._step(last)
            if step is None:
                break
            text, mark = step
            if self._bare:
                text = text.lstrip("\r\n")
            if text:
                added[kind] += (_BREAK if self._bare and kind in self._has else "") + text
                self._has.add(kind)
                self._bare = False
            if mark:
                self._bare = self.marked = True
        return added["answer"], added["thoughts"]

    def _step(self, last: bool) -> tuple[str, bool] | None:
        """Take text of the part that goes on, up to a mark if one ends it; None: wait for more."""
        if self._state == "start":
            return self._begin(last)
        if self._state == "header":
            return self._header()
        found = _first(self._rest, self._ends)
        if found is not None:
            at, mark = found
            text, self._rest = self._rest[:at], self._rest[at + len(mark) :]
            if self._channels:
                self._state = "header"
            else:
                self._kind, self._ends = "answer", ()
            return text, True
        held = 0 if last else _held_back(self._rest, self._ends)
        text, self._rest = self._rest[: len(self._rest) - held], self._rest[-held:] if held else ""
        return (text, False) if text else None

    def _begin(self, last: bool) -> tuple[str, bool] | None:
        said = self._rest.lstrip()
        opens = (*self._pairs, *((CHANNEL, START) if self._channels else ()))
        mark = next((one for one in opens if said.startswith(one)), None)
        if mark is None:
            if not last and any(one.startswith(said) for one in opens):
                return None
            self._state, self._channels = "part", False
            return "", False
        self._rest = said[len(mark) :]
        if mark in self._pairs:
            self._state, self._kind, self._channels = "part", "thoughts", False
            self._ends = (self._pairs[mark],)
        else:
            self._state = "header"
        return "", True

    def _header(self) -> tuple[str, bool] | None:
        """Pass over the names before a message, as in `assistant<|channel|>analysis`."""
        header, mark, rest = self._rest.partition(MESSAGE)
        if not mark:
            return None  # what has no message yet is no text
        channel = header.rpartition(CHANNEL)[2].split()
        self._state, self._ends, self._rest = "part", _ENDS, rest
        self._kind = "answer" if channel[:1] == [_FINAL] else "thoughts"
        return "", True


def _first(text: str, marks: Iterable[str]) -> tuple[int, str] | None:
    """Where the first of `marks` stands in `text`, and which it is."""
    return min(((text.find(one), one) for one in marks if one in text), default=None)


def _held_back(text: str, marks: Iterable[str]) -> int:
    """How many characters at the end of `text` may be the beginning of one of `marks`."""
    longest = max((len(one) for one in marks), default=1) - 1
    for size in range(min(longest, len(text)), 0, -1):
        if any(one.startswith(text[-size:]) for one in marks):
            return size
    return 0


class Marks:
    """The marks that a model's tokenizer or chat template knows."""

    def __init__(self, tokenizer: Any, template: str = "") -> None:
        """`tokenizer` is a `tokenizers.Tokenizer`."""
        added = tokenizer.get_added_tokens_decoder()
        names = {token.content for token in added.values()}
        self._tokenizer = tokenizer
        self._special = {id_: token.content for id_, token in added.items() if token.special}
        self._pairs = {
            one: end
            for one, end in PAIRS.items()
            if end in names or (one in template and end in template)
        }
        self._channels = {CHANNEL, MESSAGE} <= names
        marks = [*self._pairs, *self._pairs.values(), *(_HARMONY if self._channels else ())]
        self.tokens = {
            id_: text for id_, text in self._special.items() if any(text in mark for mark in marks)
        }
        """Marks, or parts of them, that are special tokens and so missing from decoded text."""

    def splitter(self, prompt: Sequence[int]) -> Splitter:
        """A splitter for the output after `prompt`, whose end may have opened the thoughts."""
        end = self._tokenizer.decode(prompt[-16:], skip_special_tokens=False).rstrip()
        opened = next((close for one, close in self._pairs.items() if end.endswith(one)), "")
        return Splitter(self._pairs, channels=self._channels, opened=opened)

    def marked_text(self, ids: Sequence[int]) -> str:
        """The text of `ids` with its marks, and without other special tokens."""
        if not self.tokens.keys() & set(ids):
            return str(self._tokenizer.decode(ids, skip_special_tokens=True))
        kept = [id_ for id_ in ids if id_ in self.tokens or id_ not in self._special]
        return str(self._tokenizer.decode(kept, skip_special_tokens=False))

    def raw_text(self, ids: Sequence[int]) -> str:
        """The text of `ids` with all special tokens."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=False))


class OutputText:
    """The text of one output, token by token and as a whole."""

    def __init__(self, marks: Marks, prompt: Sequence[int]) -> None:
        self._marks = marks
        self._prompt = prompt
        self._splitter = marks.splitter(prompt)
        self.thought_tokens = 0
        """Tokens before the answer, or between its parts: thoughts and marks."""

    def add(self, token: int, piece: str) -> tuple[str, str]:
        """What `token`, whose decoded text is `piece`, adds to the answer and to the thoughts."""
        answered = self._splitter.answering
        split = self._splitter.feed(piece + self._marks.tokens.get(token, ""))
        if not (answered and self._splitter.answering):
            self.thought_tokens += 1
        return split

    def whole(self, ids: Sequence[int]) -> tuple[str, str, str]:
        """The answer, the thoughts, and the raw text of all `ids`, empty where it is the answer."""
        splitter = self._marks.splitter(self._prompt)
        parts = splitter.feed(self._marks.marked_text(ids)), splitter.end()
        text, thoughts = ("".join(two) for two in zip(*parts, strict=True))
        return text, thoughts.rstrip(), self._marks.raw_text(ids) if splitter.marked else ""
