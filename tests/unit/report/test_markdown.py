"""A report as Markdown, read back by a parser: tables, plots, and text without markup."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from fakes.saved_measurement import measured
from fakes.saved_snapshots import MODEL_INFO, answer, hostile_text, snapshot, variant
from quantchat.document.drawing import pictures
from quantchat.document.markdown import OURS, escaped, fenced, markdown
from quantchat.report.content import content
from quantchat.snapshot.schema import Snapshot, TurnRecord
from quantchat.text import neutralise, one_line

ATTACKS = [
    "<script>alert(1)</script>", "<!-- x", "![x](http://evil.example/x.png)", "[x](javascript:1)",
    "http://evil.example", "www.evil.example", "# title", "| a | b |", "a\\|b", "`code` ``", "- x",
    "1. x", "2) y", "> q", "***", "---", "===", "~~~", "**b** _i_ ~s~", "&lt;b&gt;", "x  ", "[^1]",
    "[x]: http://evil.example", "+", "$x$ @user",
]  # fmt: skip

_PARSER = MarkdownIt("commonmark", {"linkify": True}).enable(["table", "strikethrough", "linkify"])


def read(text: str) -> list[Token]:
    """All tokens of the text, those within lines as well."""
    return [inner for token in _PARSER.parse(text) for inner in (token, *(token.children or []))]


def shown(text: str) -> str:
    """The words a reader sees, without code."""
    return "".join(
        token.content if token.type == "text" else "\n"
        for token in read(text)
        if token.type in ("text", "softbreak", "paragraph_close")
    ).strip("\n")


def report(*snapshots: Snapshot, folder: str = "report_files") -> str:
    return markdown(content([("1.json", one) for one in snapshots]), folder).decode()


def hostile(text: str) -> Snapshot:
    said = answer(text, text=text, pieces=[text, "", ""])
    ran = variant(text, note=text, model_info=MODEL_INFO)
    turn = TurnRecord(number=1, prompt=text, answers=[said, answer("B")], divergence_point=0)
    return snapshot(name=text, shown=[text, "B"], variants=[ran, variant("B")], turns=[turn])


def test_a_measurement_is_told(tmp_path: Path) -> None:
    text = report(measured(tmp_path, labels=("GPTQ", "NF4")))
    assert text.startswith(OURS.decode())
    assert "# Scripted" in text
    assert "| decode throughput | 50.0 tok/s | 100 tok/s | 2.000 |" in text
    assert "The first difference stands in ⟦ ⟧." in text
    assert "France⟦ is⟧ Paris." in text
    assert "word for word, as in Round 1, prompt 1." in text


def test_each_plot_is_shown_from_its_file(tmp_path: Path) -> None:
    for many in ([measured(tmp_path)], [measured(tmp_path), snapshot()]):
        made = content([(f"{n}.json", one) for n, one in enumerate(many)])
        tokens = read(markdown(made, "my report_files").decode())
        images = [str(token.attrs["src"]) for token in tokens if token.type == "image"]
        assert images == [f"my%20report_files/{name}" for name in pictures(made)]
        assert len(set(images)) == len(images) > 0


def test_tables_keep_their_shape() -> None:
    tokens = read(report(hostile("a | b \\| c")))
    widths = []
    for token in tokens:
        if token.type in ("thead_open", "tbody_open"):
            widths.append(0)
        elif token.type in ("th_open", "td_open"):
            widths[-1] += 1
    *widths, _, _ = widths
    # What ran, memory, the turn: a name and two variants in each row; then the terms.
    assert len(widths) == 6
    assert all(width % 3 == 0 for width in widths)


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_text(attack: str) -> None:
    tokens = read(report(hostile(attack)))
    kinds = [token.type for token in tokens]
    assert kinds.count("html_block") == 1  # our own first line
    assert not {"html_inline", "link_open", "em_open", "strong_open", "s_open"} & set(kinds)
    assert not {"blockquote_open", "ordered_list_open", "hr", "code_block"} & set(kinds)
    sources = [str(token.attrs["src"]) for token in tokens if "src" in token.attrs]
    assert all(source.startswith("report_files/") for source in sources)
    assert [token.content for token in tokens if token.type == "fence"][:2] == [
        f"{attack}\n",
        f"⟦{attack}⟧\n",
    ]


@given(hostile_text | st.sampled_from(ATTACKS))
def test_escaped_text_reads_as_it_was(text: str) -> None:
    line = one_line(text)
    assert shown(f"x {escaped(line)} x") == f"x {line} x"


@given(st.text("`~a\n ", max_size=12) | hostile_text)
def test_a_fence_holds_all(text: str) -> None:
    clean = neutralise(text)
    (token, *more) = read(fenced(clean))
    assert (token.type, token.content, more) == ("fence", f"{clean}\n", [])
