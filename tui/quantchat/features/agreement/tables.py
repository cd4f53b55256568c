"""The result of an agreement check as a table, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from quantchat.document.document import Block, Cell, Column, Table, cells
from quantchat.features.agreement.rerun_agreement import CONDITIONS, AgreementResult


def blocks(results: Sequence[AgreementResult]) -> list[Block]:
    """Return a table with a row for each variant and condition.

    It says how many answers stayed the same, and where the first difference is.
    """
    rows: list[tuple[Cell, ...]] = []
    for variant in dict.fromkeys(one.variant for one in results):
        rows.append(cells([Cell(variant, role="heading"), "", ""]))
        for condition, same, earliest in _conditions(results, variant):
            rows.append(cells([Cell(condition, indent=2), same, earliest]))
    return [
        Table(
            "Compared with itself, one at a time with an empty cache",
            (
                Column("repeated"),
                Column("same answer", right=True),
                Column("first divergence", right=True),
            ),
            tuple(rows),
            compact=True,  # 65 columns: fits the narrowest terminal
        )
    ]


def _conditions(results: Sequence[AgreementResult], variant: str) -> Iterator[tuple[str, str, str]]:
    """Yield each condition, `3 of 5` (equal answers), `token 17 of 64` (the first difference)."""
    for condition in CONDITIONS:
        own = [one for one in results if (one.variant, one.condition) == (variant, condition)]
        compared = [one for one in own if not one.problem]
        if not compared:
            yield condition, "–", next((one.problem for one in own), "not reached")
            continue
        diverged = [one for one in compared if one.point is not None]
        first = min(diverged, key=lambda one: one.point or 0, default=None)
        place = f"{first.unit} {(first.point or 0) + 1} of {first.tokens}" if first else "none"
        yield condition, f"{len(compared) - len(diverged)} of {len(compared)}", place


def json_document(results: Sequence[AgreementResult]) -> list[dict[str, object]]:
    """Return each result as JSON values; `prompt` and `point` are counted from 0."""
    return [asdict(one) for one in results]
