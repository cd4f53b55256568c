"""A report begins with a sentence on its result and ends with definitions of its terms."""

from __future__ import annotations

from dataclasses import replace

import pytest
from matplotlib.figure import Figure

from fakes.saved_measurement import measured
from fakes.saved_snapshots import scored, snapshot
from quantchat.document.document import Paragraph
from quantchat.document.html import html
from quantchat.document.markdown import markdown
from quantchat.report.conclusion import conclusion
from quantchat.report.content import content
from quantchat.report.plots import plots
from quantchat.snapshot import ratios
from quantchat.snapshot.schema import Snapshot


@pytest.fixture(scope="module")
def of_a_run(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    return measured(tmp_path_factory.mktemp("run"))


def test_the_result_of_a_run_stands_first(of_a_run: Snapshot) -> None:
    found = conclusion(of_a_run)
    assert found.startswith("B decodes 2.00× as fast as A")
    first = content([("r.json", of_a_run)]).sections[0].parts[0]
    assert isinstance(first, Paragraph) and first.spans[0].text == found
    page = html(content([("r.json", of_a_run)])).decode()
    assert page.index("B decodes 2.00× as fast") < page.index("<table")
    assert page.count("B decodes 2.00× as fast") == 1


def test_the_result_of_a_score_has_its_figures() -> None:
    score = scored().score
    assert score is not None
    found = conclusion(scored())
    closest = min(
        (one for one in score.models if one.role == "variant" and one.divergence),
        key=lambda one: one.divergence.kld_mean.value if one.divergence else 0.0,
    )
    assert found.startswith(f"{closest.label} differs from the reference by a KLD of")
    assert "top-1 agreement" in found and "noise floor" in found


def test_a_chat_has_no_conclusion() -> None:
    assert conclusion(snapshot()) == ""


def test_the_terms_stand_at_the_end(of_a_run: Snapshot) -> None:
    for saved in ([("r.json", of_a_run)], [("r.json", of_a_run), ("s.json", of_a_run)]):
        report = content(saved)
        assert report.sections[-1].title == "Terms"
        page, text = html(report).decode(), markdown(report, "files")
        assert page.index("time to first token:") > page.index("Plots")
        assert b"## Terms" in text and b". Terms" not in text


def test_a_score_has_quality_against_size() -> None:
    score = scored().score
    assert score is not None
    known = [one for one in score.models if one.role == "variant" and one.divergence]
    sized = [
        known[0].model_copy(update={"label": label, "weights": size})
        for label, size in (("GPTQ", 114_000_000), ("NF4", 111_000_000))
    ]
    others = [one for one in score.models if one.role != "variant"]
    both = score.model_copy(update={"models": [*others, *sized]})
    saved = scored().model_copy(update={"score": both})
    (plot,) = [one for one in plots(saved) if one.name == "quality-against-size"]
    figure = Figure()
    plot.draw(figure)
    assert figure.axes[0].get_xlabel() == "weights, GB"
    assert "no difference between the two is shown" in conclusion(saved)
    assert "noise floor" in plot.note


def test_one_wide_interval_does_not_press_the_others_together(
    of_a_run: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = ratios.compare_sides(of_a_run)
    first, *others = rows
    wide = replace(first, ratio=replace(first.ratio, low=0.002, high=4967.0))
    monkeypatch.setattr("quantchat.report.plots.compare_sides", lambda _: [wide, *others])
    (plot,) = [one for one in plots(of_a_run) if one.name == "ratios"]
    assert "Arrows: 2 ends of intervals beyond the plot." in plot.note
    figure = Figure()
    plot.draw(figure)
    low, high = figure.axes[0].get_xlim()
    assert high < 10 and low > 0.1
