"""The sentence on a measurement's result: the side it names, and when it claims nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.printed_document import printed
from fakes.saved_measurement import measured
from quantchat.document.document import Paragraph
from quantchat.document.snapshot_tables import variants_table
from quantchat.features.measure.headline import _speed, _weights, headline
from quantchat.report.content import content
from quantchat.snapshot.schema import Snapshot
from quantchat.statistics.intervals import Ratio


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    return measured(tmp_path_factory.mktemp("measured"), labels=("GPTQ", "NF4"))


def ratio(value: float, low: float | None = None, high: float | None = None) -> Ratio:
    return Ratio(value, low, high, 6, 3, 3, "prompt")


def test_a_measurement_is_said_in_a_sentence(saved: Snapshot) -> None:
    said = headline(saved)
    assert said.startswith("NF4 decodes 2.00× as fast as GPTQ (2.00 to 2.00), one at a time;")
    first = content([("one.json", saved)]).sections[0].parts[0]
    assert isinstance(first, Paragraph)
    assert "".join(span.text for span in first.spans).startswith("NF4 decodes 2.00× as fast")
    assert headline(saved.model_copy(update={"measurement": None})) == ""
    assert headline(saved.model_copy(update={"shown": ["GPTQ"]})) == ""


def test_a_slow_kernel_comes_before_the_figures(saved: Snapshot) -> None:
    gptq, nf4 = saved.variants
    assert gptq.model_info is not None
    model_info = replace(gptq.model_info, slow_kernel="it unpacks (a cure)")
    slow = saved.model_copy(
        update={"variants": [gptq.model_copy(update={"model_info": model_info}), nf4]}
    )
    assert headline(slow) == f"SLOW KERNEL of GPTQ: it unpacks (a cure). {headline(saved)}"
    assert "SLOW KERNEL: it unpacks (a cure)" in printed(variants_table(slow))


def test_it_claims_no_more_than_the_interval_bears() -> None:
    assert _speed("a", "b", ratio(0.8, 0.75, 0.9), "in turn") == (
        "a decodes 1.25× as fast as b (1.11 to 1.33), in turn"
    )
    assert _speed("a", "b", ratio(1.1, 0.9, 1.3), "contended") == (
        "no difference between a and b in decoding is shown, contended"
    )
    assert _speed("a", "b", ratio(1.5), "in turn") == (
        "b decoded 1.50× as fast as a, measured once, in turn"
    )
    assert _weights("a", "b", ratio(0.5)) == "the weights of b are 0.50× as large as those of a"
    assert _weights("a", "b", ratio(1.0)) == "the weights are equally large"


@given(st.floats(0.01, 100), st.floats(1.0001, 3))
def test_the_same_is_said_whichever_side_is_which(value: float, spread: float) -> None:
    one = ratio(value, value / spread, value * spread)
    other = ratio(1 / value, 1 / (value * spread), spread / value)
    assert _speed("a", "b", one, "in turn").replace("a and b", "b and a") == _speed(
        "b", "a", other, "in turn"
    ).replace("a and b", "b and a")
