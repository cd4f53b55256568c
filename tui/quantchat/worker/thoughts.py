"""Separate a model's thoughts (its reasoning) from its answer.

Reasoning models write both into one output, with marks such as `<think>` around the thoughts. Some
marks are special tokens, which are left out when tokens are decoded to text. Thoughts must be
separated, because chat templates expect earlier turns without marks and thoughts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from quantchat.worker.text_marks import StopStrings, first_mark, held_back

PAIRS = {
    "<think>": "</think>",  # DeepSeek-R1, Qwen3, SmolLM3, GLM, MiniMax, …
    "[THINK]": "[/THINK]",  # Magistral
    "<|channel>thought": "<channel|>",  # Gemma 4
    "<|START_THINKING|>": "<|END_THINKING|>",  # Command A Reasoning
    "<seed:think>": "</seed:think>",  # Seed-OSS
    "◁think▷": "◁/think▷",  # Kimi
}
"""Marks around the thoughts at the beginning of an output. Key: opening mark; value: closing
mark."""

CHANNEL, MESSAGE, START = "<|channel|>", "<|message|>", "<|start|>"
_ENDS = ("<|end|>", "<|return|>", "<|call|>", START, CHANNEL)
"""Marks of the output format harmony (gpt-oss), and those of them that end a text. An output
consists of messages. The header of each message names its channel: analysis, commentary or final.
https://developers.openai.com/cookbook/articles/openai-harmony"""
_FINAL = "final"
"""The channel of the answer; the other channels count as thoughts."""
_BREAK = "\n\n"
"""Put between two messages that are both answer or both thoughts, when they are joined."""

_HARMONY = (MESSAGE, *_ENDS)
"""All marks of harmony."""


class Splitter:
    """Splits an output, which comes in pieces, into answer and thoughts.

    The result does not depend on how the output is cut into pieces. `pairs` has the opening and
    closing marks to look for; with `channels`, the marks of harmony are looked for too. If the
    prompt ends with an opening mark, the output begins with thoughts, and `closing_mark` is the
    mark that will close them; otherwise it is empty.
    """

    def __init__(
        self, pairs: Mapping[str, str] = PAIRS, *, channels: bool = False, closing_mark: str = ""
    ) -> None:
        self._pairs = pairs
        self._channels = channels and not closing_mark
        self._state = "part" if closing_mark else "start"
        """`start`: before any text; `header`: in the header of a message of harmony; `part`: in a
        part, which is a stretch of answer or thoughts between two marks."""
        self._kind = "thoughts" if closing_mark else "answer"
        """Whether the current part is `answer` or `thoughts`."""
        self._ends: tuple[str, ...] = (closing_mark,) if closing_mark else ()
        """Marks that end the current part."""
        self._pending = ""
        """Text that is not split yet, because it may be the beginning of a mark."""
        self._after_mark = bool(closing_mark)
        """Whether nothing but line breaks has come since the last mark; these are dropped."""
        self._kinds_with_text: set[str] = set()
        """Which of `answer` and `thoughts` have text so far."""
        self.marked = bool(closing_mark)
        """Whether any mark has come."""

    @property
    def answering(self) -> bool:
        """Whether the current part is the answer; also True before any text has come."""
        return self._state != "header" and self._kind == "answer"

    @property
    def closing(self) -> str:
        """The marks that end the current thoughts and begin the answer; empty outside thoughts."""
        if self._state != "part" or self._kind != "thoughts":
            return ""
        if self._channels:
            return f"{_ENDS[0]}{START}assistant{CHANNEL}{_FINAL}{MESSAGE}"
        return self._ends[0]

    def feed(self, text: str) -> tuple[str, str]:
        """Return what `text` adds to the answer and to the thoughts."""
        self._pending += text
        return self._take(last=False)

    def end(self) -> tuple[str, str]:
        """Return what the rest of the output adds to the answer and to the thoughts, at its end.

        The rest is the text that was held back because it might have begun a mark.
        """
        return self._take(last=True)

    def _take(self, *, last: bool) -> tuple[str, str]:
        added = {"answer": "", "thoughts": ""}
        while self._pending:
            kind = self._kind
            step = self._step(last)
            if step is None:
                break
            text, mark = step
            if self._after_mark:
                text = text.lstrip("\r\n")
            if text:
                added[kind] += (
                    _BREAK if self._after_mark and kind in self._kinds_with_text else ""
                ) + text
                self._kinds_with_text.add(kind)
                self._after_mark = False
            if mark:
                self._after_mark = self.marked = True
        return added["answer"], added["thoughts"]

    def _step(self, last: bool) -> tuple[str, bool] | None:
        """Take text from `_pending`; return it, and whether a mark follows it.

        Return None if nothing can be taken before more text has come. `last` says that no more text
        will come.
        """
        if self._state == "start":
            return self._begin(last)
        if self._state == "header":
            return self._header()
        found = first_mark(self._pending, self._ends)
        if found is not None:
            at, mark = found
            text, self._pending = self._pending[:at], self._pending[at + len(mark) :]
            if self._channels:
                self._state = "header"
            else:
                self._kind, self._ends = "answer", ()
            return text, True
        held = 0 if last else held_back(self._pending, self._ends)
        text, self._pending = (
            self._pending[: len(self._pending) - held],
            self._pending[-held:] if held else "",
        )
        return (text, False) if text else None

    def _begin(self, last: bool) -> tuple[str, bool] | None:
        text = self._pending.lstrip()
        opens = (*self._pairs, *((CHANNEL, START) if self._channels else ()))
        mark = next((one for one in opens if text.startswith(one)), None)
        if mark is None:
            if not last and any(one.startswith(text) for one in opens):
                return None
            self._state, self._channels = "part", False
            return "", False
        self._pending = text[len(mark) :]
        if mark in self._pairs:
            self._state, self._kind, self._channels = "part", "thoughts", False
            self._ends = (self._pairs[mark],)
        else:
            self._state = "header"
        return "", True

    def _header(self) -> tuple[str, bool] | None:
        """Skip the header of a message, e.g. `assistant<|channel|>analysis`."""
        header, mark, rest = self._pending.partition(MESSAGE)
        if not mark:
            return None  # the header is not complete
        channel = header.rpartition(CHANNEL)[2].split()
        self._state, self._ends, self._pending = "part", _ENDS, rest
        self._kind = "answer" if channel[:1] == [_FINAL] else "thoughts"
        return "", True


def split_at_end(text: str) -> tuple[str, str]:
    """Return answer and thoughts of `text`, the whole output of a server.

    For use if no thoughts were found otherwise. The prompt may have ended with an opening mark, but
    a server does not send back the prompt that its chat template renders. So only a closing mark in
    the output shows that the output began with thoughts. The mark counts only if a line break
    precedes or follows it, or if it is at the start or the end of the text, because an answer may
    mention the mark.
    """
    for close in PAIRS.values():
        found = re.search(rf"(?:\A|(?<=\n)){re.escape(close)}|{re.escape(close)}(?=\n|\Z)", text)
        if found:
            return text[found.end() :].lstrip("\r\n"), text[: found.start()].rstrip()
    return text, ""


class Marks:
    """The marks that a model uses, found in its tokenizer or chat template."""

    def __init__(
        self, tokenizer: Any, template: str = "", named_marks: Sequence[str] | None = None
    ) -> None:
        """Find the marks of a model.

        `tokenizer` is a `tokenizers.Tokenizer`, `template` the chat template. `named_marks` are the
        marks that the profile names, if it names any: opening mark, which may be empty, and closing
        mark.
        """
        added = tokenizer.get_added_tokens_decoder()
        names = {token.content for token in added.values()}
        self._tokenizer = tokenizer
        self._special = {id_: token.content for id_, token in added.items() if token.special}
        self._pairs = {
            one: end
            for one, end in PAIRS.items()
            if end in names or (one in template and end in template)
        }
        self._closing_mark = ""
        """The closing mark if, by the profile, prompts end with an opening mark; else empty."""
        if named_marks:
            self._pairs, self._closing_mark = _pairs_of(named_marks)
        self._channels = {CHANNEL, MESSAGE} <= names
        marks = [*self._pairs, *self._pairs.values(), *(_HARMONY if self._channels else ())]
        self.tokens = {
            id_: text for id_, text in self._special.items() if any(text in mark for mark in marks)
        }
        """Key: id of a special token that is a mark or a part of a mark, which decoding leaves out;
        value: its text."""

    def splitter(self, prompt: Sequence[int]) -> Splitter:
        """Return a splitter for the output after the tokens `prompt`.

        If `prompt` ends with an opening mark, the output begins with thoughts.
        """
        end = self._tokenizer.decode(prompt[-16:], skip_special_tokens=False).rstrip()
        opens = (close for one, close in self._pairs.items() if end.endswith(one))
        opened = next(opens, self._closing_mark)
        return Splitter(self._pairs, channels=self._channels, closing_mark=opened)

    def marked_text(self, ids: Sequence[int]) -> str:
        """Return the text of `ids` with its marks, but without other special tokens."""
        if not self.tokens.keys() & set(ids):
            return str(self._tokenizer.decode(ids, skip_special_tokens=True))
        kept = [id_ for id_ in ids if id_ in self.tokens or id_ not in self._special]
        return str(self._tokenizer.decode(kept, skip_special_tokens=False))

    def raw_text(self, ids: Sequence[int]) -> str:
        """Return the text of `ids` with all special tokens."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=False))


def _pairs_of(marks: Sequence[str]) -> tuple[dict[str, str], str]:
    """Return the pairs of marks, and the closing mark of thoughts that the prompt opens.

    `marks` are the opening and the closing mark in a profile. If the opening mark is empty, each
    prompt ends with it, and there are no pairs. Otherwise the second value is empty.
    """
    start, end = marks
    return ({start: end}, "") if start else ({}, end)


def server_splitter(marks: Sequence[str] | None) -> Splitter:
    """Return a splitter for the text of a server, which may leave the marks in.

    `marks` are the opening and the closing mark that the profile names, if it names any.
    """
    if marks is None:
        return Splitter(channels=True)
    pairs, opened = _pairs_of(marks)
    return Splitter(pairs, closing_mark=opened)


class OutputText:
    """The text of one output, token by token and as a whole; a stop string in `stop` ends it."""

    def __init__(self, marks: Marks, prompt: Sequence[int], stop: Sequence[str] = ()) -> None:
        self._marks = marks
        self._prompt = prompt
        self._splitter = marks.splitter(prompt)
        self._stop = StopStrings(stop)
        self.thought_tokens = 0
        """Number of tokens of thoughts and marks so far."""

    @property
    def stopped(self) -> bool:
        """Whether a stop string has ended the output, so that later tokens do not belong to it."""
        return self._stop.found

    @property
    def closing(self) -> str:
        """The marks that end the current thoughts (`Splitter.closing`); empty outside thoughts."""
        return self._splitter.closing

    def add(self, token: int, piece: str) -> tuple[str, str]:
        """Return what `token`, decoded as `piece`, adds to the answer and to the thoughts."""
        answered = self._splitter.answering
        text = self._stop.feed(piece + self._marks.tokens.get(token, ""))
        split = self._splitter.feed(text)
        if not (answered and self._splitter.answering):
            self.thought_tokens += 1
        return split

    def whole(self, ids: Sequence[int]) -> tuple[str, str, str]:
        """Return answer, thoughts and raw text of `ids`, all tokens of the output.

        The raw text includes marks and special tokens. It is empty if the output has no mark and no
        stop string, because it would then only repeat the answer.
        """
        splitter = self._marks.splitter(self._prompt)
        marked = self._marks.marked_text(ids)
        before = self._stop.before(marked) if self.stopped else None
        parts = splitter.feed(marked if before is None else before), splitter.end()
        text, thoughts = ("".join(two) for two in zip(*parts, strict=True))
        differs = splitter.marked or self.stopped
        return text, thoughts.rstrip(), self._marks.raw_text(ids) if differs else ""
