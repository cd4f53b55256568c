"""A report as HTML: its content, and that nothing from a snapshot is active in the page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from fakes.page_reader import PageReader
from fakes.safe_line import is_clean
from fakes.saved_measurement import hostile_measurements, measured
from fakes.saved_snapshots import hostile, hostile_snapshots, snapshot
from quantchat.document.html import OURS, html
from quantchat.report.content import content
from quantchat.snapshot.schema import Snapshot

ALLOWED = {
    "a", "article", "aside", "b", "body", "caption", "details", "div", "figcaption", "figure",
    "h1", "h2", "h3", "h4", "head", "html", "li", "main", "mark", "meta", "p", "pre", "section",
    "small", "span", "style", "summary", "table", "tbody", "td", "th", "thead", "title", "tr", "ul",
    # of the plots
    "svg", "g", "path", "defs", "use", "text", "tspan", "clippath", "rect", "pattern",
}  # fmt: skip

ATTACKS = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</svg><script>alert(1)</script>",
    "</pre></style></title><iframe src=//evil.example>",
    "<!-- --><a href=javascript:alert(1)>x</a>",
    "]]><foreignObject><body onload=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "url(http://evil.example/x.png)",
    "&lt;b&gt; &amp;#60;script&#62;",
    "$\\frac{$ _nolegend_ #0072b2",
]


def page(*snapshots: Snapshot) -> bytes:
    return html(content([(f"{n}.json", one) for n, one in enumerate(snapshots, start=1)]))


def inert(content_: bytes) -> PageReader:
    """The page as read, after it was seen to hold nothing that does anything."""
    read = PageReader(content_)
    assert {tag for tag, _ in read.elements} <= ALLOWED
    assert not read.comments
    for _, attributes in read.elements:
        assert not [name for name in attributes if name.startswith("on")]
        for name in attributes.keys() & {"href", "xlink:href", "src", "action", "formaction"}:
            assert attributes[name].startswith("#")
        for reference in re.findall(r"url\(([^)]*)\)", " ".join(attributes.values())):
            assert reference.startswith("#")
    assert all(is_clean(line.replace("\t", "")) for line in content_.decode().split("\n"))
    return read


# ------------------------------------------------------------ what is shown


def test_a_measurement_is_told(tmp_path: Path) -> None:
    read = inert(page(measured(tmp_path, labels=("GPTQ", "NF4"))))
    assert read.of("h1") == ["Scripted"]
    captions = read.of("caption")
    assert captions == [
        "B against A, one at a time",
        "Mean of each prompt, one at a time",
        "What ran",
        "Memory",
    ]
    text = read.text
    for said in (
        "measured one at a time: 6 turns, 3 prompts, 2 rounds, 1 warm-up", "greedy, at most",
        "2.000", "100.0 tok/s", "What is the capital of France?", "Linear4bit nf4, double quant",
        "512 MiB", "A: GPTQ (one at a time)", "B: NF4 (one at a time)", "Round 1, prompt 1",
    ):  # fmt: skip
        assert said.replace("100.0", "100") in text, said
    assert [title for title in read.of("h4") if not title.startswith(("A: ", "B: "))] == [
        "B against A", "ITL over the answer", "Distribution of the ITL", "Memory ledger",
        "Memory over time, by variant", "Memory over time, of the device",
    ]  # fmt: skip


def test_the_first_difference_is_marked(tmp_path: Path) -> None:
    read = inert(page(measured(tmp_path)))
    assert "the answers diverge at token 5" in read.text
    assert read.of("mark")[:2] == [" is", " was"]


def test_answers_that_come_again_are_told_once(tmp_path: Path) -> None:
    read = inert(page(measured(tmp_path, rounds=3)))
    assert len(read.of("mark")) == 2 * 3
    again = [text for text in read.of("p") if text.startswith("The same answers")]
    assert again[0] == "The same answers, word for word, as in Round 1, prompt 1."
    assert len(again) == 2 * 3


def test_contended_figures_say_so(tmp_path: Path) -> None:
    text = inert(page(measured(tmp_path, order="together"))).text
    assert "contended: both decoded at once; not to be quoted" in text
    assert "B against A, together (contended)" in text
    assert "A: A (together)" in text
    assert "(one at a time)" not in text


def test_a_chat_is_told_without_ratios() -> None:
    text = inert(page(snapshot())).text
    assert "a chat: each figure is of a single answer" in text
    assert "What is the capital of France?" in text
    assert "B against A" not in text


def test_several_have_an_overview_that_leads_to_each(tmp_path: Path) -> None:
    read = inert(page(measured(tmp_path), measured(tmp_path, order="together"), snapshot()))
    assert read.of("h1") == ["3 comparisons"]
    *anchors, terms = [a["id"] for tag, a in read.elements if tag == "article"]
    assert terms == "glossary"
    assert [a["href"] for tag, a in read.elements if tag == "a"] == [f"#{a}" for a in anchors]
    assert "Decode throughput" in read.of("caption")


def test_what_differed_between_runs_is_told(tmp_path: Path) -> None:
    read = inert(page(measured(tmp_path), measured(tmp_path, order="together")))
    assert "What differed in how they ran" in read.of("caption")
    assert "not comparable: run 1 ran one at a time, run 2 together" in read.text


# ------------------------------------------------------------ what must not happen


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    content_ = page(measured(tmp_path), snapshot())
    assert OURS in content_[:1000]
    assert b"http:" not in content_
    assert b"https:" not in content_
    read = PageReader(content_)
    (policy,) = [a["content"] for _, a in read.elements if a.get("http-equiv")]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_text(attack: str) -> None:
    read = inert(page(hostile(attack)))
    assert read.of("pre").count(attack) >= 2  # the prompt, and an answer
    assert attack in read.of("mark")
    assert any(attack[:40] in caption for caption in read.of("text"))  # in the plots' labels


def test_controls_become_visible() -> None:
    text = inert(page(hostile("\x1b]52;c;AA\x07 \u202egnp \ud800 \ufffe \x00\x85"))).text
    assert "␛]52;c;AA␇ ⟨202E⟩gnp ⟨D800⟩" in text


@given(hostile_snapshots | hostile_measurements())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_snapshot_makes_an_inert_page(saved: Snapshot) -> None:
    inert(page(saved, saved))
