"""Long texts of each difficult kind, split into tokens; token n is the same in each run."""

from __future__ import annotations

import re

KINDS = ("prose", "paragraph", "code", "table", "cjk", "emoji")

_TEXT = "the weights are kept in groups and each group has a scale of its own so that few"
_WORDS = _TEXT.split()
_CJK = "量子化は重みを少ないビットで表し記憶と速さを得る方法である両方の列に同じ問いを送る"
_EMOJI = ("👩‍💻", "🎉", "🇫🇷", "👍🏽", "🧪", "👨‍👩‍👧", "❤️", "🚀")


def tokens(kind: str, count: int) -> list[str]:
    """`count` tokens of `kind`; every tenth or so carries its number, so that none can go unseen.

    Code is one fence of three tokens a line, a table has rows of six; the fence is closed only by
    the last token. Raises KeyError for another kind.
    """
    made = _MAKERS[kind](count)
    if kind == "code":
        made[-1] = "\n```"
    return made


def wanted(prompt: str) -> tuple[str, int, int, int]:
    """What `prompt` asks for: a kind, a rate, how many tokens, and how many of them at once.

    The last of what was asked, if two prompts were typed into one.
    """
    kind, rate, count, at_once = re.findall(r"([a-z]+) (\d+) (\d+)(?: (\d+))?", prompt)[-1]
    return kind, int(rate), int(count), int(at_once or 0)


def text(kind: str, count: int) -> str:
    """The same, joined."""
    return "".join(tokens(kind, count))


def _prose(count: int) -> list[str]:
    return [f"\n\nParagraph {n} says: " if n % 60 == 0 else _word(n) for n in range(count)]


def _paragraph(count: int) -> list[str]:
    return [_word(n) for n in range(count)]


def _word(n: int) -> str:
    return f"w{n} " if n % 10 == 9 else f"{_WORDS[n % len(_WORDS)]} "


def _code(count: int) -> list[str]:
    parts = ("x{} ", "= ", "{}\n")
    return ["```python\n", *(parts[n % 3].format(n) for n in range(1, count))]


def _table(count: int) -> list[str]:
    head = ["| number ", "| square ", "| note ", "|\n", "|---|---|---", "|\n"]
    parts = ("| {} ", "| {} ", "| a ", "note ", "here ", "|\n")
    return (head + [parts[n % 6].format(n) for n in range(6, count)])[:count]


def _cjk(count: int) -> list[str]:
    return [f"。{n}\n\n" if n % 80 == 79 else _CJK[n % len(_CJK)] for n in range(count)]


def _emoji(count: int) -> list[str]:
    return [f" {n}\n\n" if n % 40 == 39 else _EMOJI[n % len(_EMOJI)] for n in range(count)]


_MAKERS = {
    "prose": _prose,
    "paragraph": _paragraph,
    "code": _code,
    "table": _table,
    "cjk": _cjk,
    "emoji": _emoji,
}
