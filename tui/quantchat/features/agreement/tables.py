"""A against A, as a table and for programs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from rich import box
from rich.table import Table
from rich.text import Text

from quantchat.features.agreement.rerun_agreement import CONDITIONS, AgreementResult
from quantchat.text import one_line


def render(found: Sequence[AgreementResult]) -> Table:
    """How many answers stayed the same, and the earliest difference, by variant and condition."""
    title = "Against itself, in turn with an empty cache"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.show_edge, table.padding = False, (0, 1, 0, 0)  # 65 columns, for the narrowest screen
    table.add_column("the same prompts", overflow="fold")
    table.add_column("same answer", justify="right")
    table.add_column("parts earliest at", justify="right")
    for variant, own in itertools.groupby(rows(found), key=lambda row: row[0]):
        table.add_row(Text(one_line(variant), style="bold"))
        for _, condition, same, earliest in own:
            table.add_row(f"  {condition}", same, earliest)
    return table


def rows(found: Sequence[AgreementResult]) -> Iterator[tuple[str, str, str, str]]:
    """Variant, condition, `3 of 5`, `token 17 of 64`."""
    for variant in dict.fromkeys(one.variant for one in found):
        for condition in CONDITIONS:
            own = [one for one in found if (one.variant, one.condition) == (variant, condition)]
            known = [one for one in own if not one.problem]
            if not known:
                problem = next((one.problem for one in own), "not reached")
                yield variant, condition, "–", one_line(problem)
                continue
            parted = [one for one in known if one.point is not None]
            first = min(parted, key=lambda one: one.point or 0, default=None)
            place = (
                f"{first.unit} {(first.point or 0) + 1} of {first.tokens}" if first else "nowhere"
            )
            yield variant, condition, f"{len(known) - len(parted)} of {len(known)}", place


def document(found: Sequence[AgreementResult]) -> list[dict[str, object]]:
    """Each finding; tokens are counted from 0."""
    return [asdict(one) for one in found]
