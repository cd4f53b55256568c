"""Markdown leaves products and formulas as text, without emphasis and escapes."""

from __future__ import annotations

import pytest

from quantchat.app.markdown import blocks


def drawn(source: str) -> str:
    return "\n".join(line.plain for block in blocks(source) for line in block.lines(80))


@pytest.mark.parametrize(
    "source",
    [
        "17*23 is 391, and 17*23*2 is 782",
        "2**10 and 2**20",
        "width*height*depth, a*b*c",
        "(a + b)*c*(d + e)",
        r"\(x_1 * y * z\) and \[ \{a\} \\ b \]",
        "$x*y*z$ or $\\{a\\}$",
        "costs $5 or $10",
        "\\[\na * b\n\\]",
        "$$\na \\\\ b\n$$",
        r"begun \( a",
    ],
)
def test_it_stays_as_it_is(source: str) -> None:
    assert drawn(source) == source


@pytest.mark.parametrize(
    ("source", "plain"),
    [
        ("**bold** and *emphasis*", "bold and emphasis"),
        ("**token**s and *token*s", "tokens and tokens"),
        ("*17*23 = 391*", "17*23 = 391"),
        ("\u8fd9\u662f**\u91cd\u70b9**\u5185\u5bb9", "\u8fd9\u662f\u91cd\u70b9\u5185\u5bb9"),
        (r"\* no item", "* no item"),
        (r"`\(code\)`", r"\(code\)"),
    ],
)
def test_emphasis_and_escapes_work_beside_it(source: str, plain: str) -> None:
    assert drawn(source) == plain
