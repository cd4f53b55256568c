"""The tables of a load test name what their levels are."""

from __future__ import annotations

import pytest

from fakes.saved_load_tests import load_test_record
from quantchat.document.document import Table
from quantchat.features.load_test.tables import load_warnings, tables
from quantchat.wire.jobs import LoadTestLevel


@pytest.mark.parametrize(
    ("level", "batches", "heading", "warning"),
    [
        (LoadTestLevel(4), False, "at once", "4 at once: 2 of 4 requests failed"),
        (LoadTestLevel(0, 2.5), False, "load", "a load of 2.5/s: 2 of 4 requests failed"),
        (LoadTestLevel(4, 2.5), False, "load", "a load of 2.5/s, 4: 2 of 4 requests failed"),
        (LoadTestLevel(4), True, "batch", ""),
    ],
    ids=["requests at once", "a rate", "both", "batches"],
)
def test_each_table_says_what_its_levels_are(
    level: LoadTestLevel, batches: bool, heading: str, warning: str
) -> None:
    found = load_test_record(level, batches=batches)
    shown = [block for block in tables(found) if isinstance(block, Table)]
    assert {table.columns[0].heading for table in shown} == {heading}
    ratio = shown[-1]
    assert (ratio.title, ratio.columns[1].heading) == ("other ÷ one", "output tok/s, ratio")
    lines = load_warnings(found)
    assert len(lines) == (0 if batches else 2)
    assert all(warning in line for line in lines)
