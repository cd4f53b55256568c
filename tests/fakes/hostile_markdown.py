"""Answers in Markdown with hostile payloads in each place where Markdown allows text."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from fakes.hostile_text import CUT, payload

PLACES = ("paragraph", "fence", "table", "paragraph", "fence", "lines", "paragraph", "fence")
"""By turns. Tables and lines are dear: the screen makes a widget of each cell, and each line."""

_LINES: tuple[tuple[int, str], ...] = (
    (1, "# {0}"), (3, "- {0} {1} {2}"), (2, "> {0} {1}"), (1, "[{0}](http://h/{0} '{0}')"),
    (2, "![{0}](http://h/{0}.png) **{1}**"), (2, "`{0}` *{1}*"),
    (3, "<b onclick='{0}'>{1}</b> <!-- {2} -->"), (2, "1. {0} ~~{1}~~"),
    (1, "{0} [here][{0}]\n\n[{0}]: <http://h/{0}> '{0}'"), (2, "<http://h/{0}> {1}"),
    (2, "$${0}$$ \\{1}"), (2, "* [ ] {0} {1}"),
)  # fmt: skip
"""How many payloads, and where they stand. The target of a link is not drawn, so what stands there
stands in its text as well."""


def answer(numbers: Sequence[int], shift: int) -> str:
    """The payloads `numbers`, each in the place that it and `shift` give, `CUT` in them.

    Next to each other in `PLACES` are different places: so are those of two shifts in a row.
    """
    texts: dict[str, list[str]] = {place: [] for place in PLACES}
    for number in numbers:
        texts[PLACES[(number + shift) % len(PLACES)]].append(payload(number))
    fence = "\n".join(_rows(texts["fence"], 4, " ; "))
    cells = [text.replace("|", "\\|") for text in texts["table"]]
    table = "\n".join(f"| {row} |" for row in _rows(cells, 3, " | "))
    return "\n\n".join(
        [
            "\n".join(_rows(texts["paragraph"], 4, " · ")),
            f"```sh\n{fence}\n```",
            f"| a | b | c |\n| --- | --- | --- |\n{table}",
            *_lines(texts["lines"]),
        ]
    )


def chunks(text: str) -> list[str]:
    """Split `text` at each `CUT`, as the chunks that a worker sends."""
    return text.split(CUT)


def _rows(texts: list[str], each: int, joint: str) -> Iterator[str]:
    for start in range(0, len(texts), each):
        yield joint.join(texts[start : start + each])


def _lines(texts: list[str]) -> Iterator[str]:
    left = iter(texts)
    for count, line in itertools.cycle(_LINES):
        within = list(itertools.islice(left, count))
        if not within:
            return
        yield line.format(*within, *[""] * (count - len(within)))
