"""Figures of concurrent requests, against values worked out by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantchat.statistics.serving import (
    knee,
    level_figures,
    limits,
    of_batch,
    output_tps,
    tpot_ms,
    ttft_ms,
)
from quantchat.wire.jobs import BatchRound, RequestTimes

MS = 1_000_000


def request(sent: int, *chunks: int, tokens: int | None = None, error: str = "") -> RequestTimes:
    """A request with times in ms; it ends with its last chunk."""
    ended = chunks[-1] if chunks else sent + 5
    return RequestTimes(
        sent * MS, sent * MS, [at * MS for at in chunks], ended * MS, 10,
        len(chunks) if tokens is None else tokens, error,
    )  # fmt: skip


def test_a_round() -> None:
    times = [request(0, 100, 150, 200), request(0, 120, 220, 320), request(100, 200, 240, 300)]
    figures = level_figures([times])
    assert figures is not None
    # 9 tokens and 3 requests from the first one sent (0 ms) to the end of the last (320 ms).
    assert math.isclose(figures.output_tps.value, 9 / 0.32)
    assert math.isclose(figures.requests_per_s.value, 3 / 0.32)
    assert figures.output_tps.low is None, "one round has no interval"
    assert figures.ttft_ms and figures.ttft_ms.p50 == 100
    assert figures.itl_ms and figures.itl_ms.p50 == 55  # of 40, 50, 50, 60, 100, 100
    assert figures.e2e_ms and figures.e2e_ms.p50 == 200
    assert figures.output_tokens == 3


def test_what_failed_takes_time_and_gives_nothing() -> None:
    figures = level_figures([[request(0, 100, 200), request(0, error="busy")]])
    assert figures is not None
    assert (figures.requests, figures.failed) == (2, 1)
    assert math.isclose(figures.output_tps.value, 2 / 0.2)
    assert level_figures([[request(0, error="busy")]]) is None


def test_rounds_give_an_interval() -> None:
    fast, slow = [request(0, 50, 100)], [request(0, 100, 200)]
    figures = level_figures([fast, slow, fast])
    assert figures is not None
    low, high = figures.output_tps.low, figures.output_tps.high
    assert low is not None and high is not None
    assert low < (20 + 10 + 20) / 3 < high


def test_tokens_that_share_a_chunk_count() -> None:
    one = request(0, 100, 300, tokens=5)
    assert ttft_ms(one) == 100
    assert tpot_ms(one) == 50  # 200 ms for the 4 tokens after the first
    assert tpot_ms(request(0, 100)) is None


def test_goodput_counts_what_keeps_all_limits() -> None:
    times = [request(0, 90, 130), request(0, 110, 150), request(0, 90, 200)]
    figures = level_figures([times], limits("ttft_ms < 100, itl_ms.p95 < 50"))
    assert figures is not None and figures.goodput_per_s is not None
    assert math.isclose(figures.goodput_per_s.value, 1 / 0.2)


@pytest.mark.parametrize(("text", "met"), [("ttft_ms < 100", 0), ("ttft_ms <= 100", 1)])
def test_a_latency_equal_to_the_limit(text: str, met: int) -> None:
    figures = level_figures([[request(0, 100, 200)]], limits(text))
    assert figures is not None and figures.goodput_per_s is not None
    assert math.isclose(figures.goodput_per_s.value, met / 0.2)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("ttft < 5", "'ttft < 5' is not a limit"),
        ("ttft_ms > 5", "not a limit"),
        ("itl_ms < 5", "needs one"),
        ("ttft_ms.p95 < 5", "only itl_ms has a percentile"),
        ("ttft_ms < 5,", "'' is not a limit"),
    ],
)
def test_a_limit_that_is_none(text: str, part: str) -> None:
    with pytest.raises(ValueError, match=part):
        limits(text)


@given(st.text(st.sampled_from("tfipe2l_ms.p95<=0 ,x"), max_size=40))
def test_any_text_is_limits_or_refused(text: str) -> None:
    try:
        found = limits(text)
    except ValueError as error:
        assert "for example" in str(error)
    else:
        assert len(found) == (text.count(",") + 1 if text.strip() else 0)


def test_a_batch_as_requests() -> None:
    batch = BatchRound(2, [64, 16], 100 * MS, [20 * MS, 30 * MS], 1, 1)
    times = of_batch(batch)
    assert [one.prompt_tokens for one in times] == [64, 16]
    assert [one.chunks_ns for one in times] == [[100 * MS, 120 * MS, 150 * MS]] * 2
    assert math.isclose(output_tps(times), 6 / 0.15)
    assert of_batch(BatchRound(2, [64, 16], 0, [], 0, 1, "out of memory")) == []


def test_the_knee() -> None:
    assert knee([100, 350, 900, 980, 1000]) == 2
    assert knee([100, 200, 400]) == 2, "it still grows: the knee is not before the last"
    assert knee([100, 90]) is None
