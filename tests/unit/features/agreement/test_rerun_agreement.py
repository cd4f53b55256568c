"""Agreement of a variant with itself: requests under each condition, and divergences."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fakes.printed_document import printed
from fakes.scripted_app import LEFT, RIGHT, profile
from fakes.scripted_worker import Script, ScriptedProvider, likely, starter
from quantchat.document.document import Table
from quantchat.features.agreement.rerun_agreement import (
    CACHED,
    CONDITIONS,
    REPEATED,
    TEACHER_FORCING,
    TEACHER_FORCING_BATCH,
    TOGETHER,
    AgreementCheck,
    AgreementResult,
)
from quantchat.features.agreement.tables import blocks
from quantchat.session.comparison import Comparison
from quantchat.session.runner import with_pair
from quantchat.wire.messages import END, Generate, ScoreTokens, TokenScores


async def checked(folder: Path, left: Script, right: Script, *prompts: str) -> AgreementCheck:
    scripts = {LEFT: left, RIGHT: right}
    comparison = Comparison(
        profile(generation={"temperature": 0.7}),
        provider=ScriptedProvider(scripts),
        start=starter(scripts, folder),
    )
    steps: list[tuple[int, int, str]] = []
    check = AgreementCheck(comparison, prompts, lambda *step: steps.append(step))
    await with_pair(comparison, check.run, stop=check.stop, end=check.end)
    assert steps[-1][0] == steps[-1][1] == len(prompts) * (len(CONDITIONS) + 1)
    return check


def points(check: AgreementCheck, variant: str) -> dict[str, int | None]:
    return {one.condition: one.point for one in check.results if one.variant == variant}


async def test_each_condition_is_asked_for_as_it_says(tmp_path: Path) -> None:
    left, right = Script(), Script()
    check = await checked(tmp_path, left, right, "One?", "Two?")
    assert len(check.results) == 2 * 2 * len(CONDITIONS)
    assert set(points(check, LEFT).values()) == {None}
    asked = [c for c in left.commands if isinstance(c, Generate)][:5]
    in_turn, again, together, fill, cached = asked
    assert [one.fresh for one in asked] == [True, True, True, False, False]
    assert fill.max_new_tokens == 1 and cached.max_new_tokens > 1
    assert in_turn.threads == again.threads == cached.threads >= together.threads
    assert {one.sampling.temperature for one in asked} == {0.0}
    read = [c for c in left.commands if isinstance(c, ScoreTokens)]
    assert [one.batch for one in read] == [1, 2, 1, 2]
    assert all(one.ids[-1] == END for one in read)


def rows(found: Sequence[AgreementResult]) -> list[tuple[str, ...]]:
    """The rows of the table, each with its variant in front."""
    (table,) = blocks(found)
    assert isinstance(table, Table)
    variant, shown = "", []
    for name, *others in table.rows:
        if name.role == "heading":
            variant = name.text
        else:
            shown.append((variant, name.text, *(cell.text for cell in others)))
    return shown


async def test_where_it_diverges(tmp_path: Path) -> None:
    count = 0

    def answer(request: Generate) -> str:
        nonlocal count
        count += 1
        return "one two three" if count != 3 else "one two four"

    def read(request: ScoreTokens) -> TokenScores:
        told = likely(request)
        return dataclasses.replace(told, ranks=[0, 1, 0, 0]) if request.batch == 2 else told

    check = await checked(tmp_path, Script(answer=answer, token_scores=read), Script(), "One?")
    assert points(check, LEFT) == {
        REPEATED: None,
        TOGETHER: 2,
        CACHED: None,
        TEACHER_FORCING: None,
        TEACHER_FORCING_BATCH: 1,
    }
    shown = rows(check.results)
    assert (LEFT, TOGETHER, "0 of 1", "token 3 of 3") in shown
    assert (RIGHT, TOGETHER, "1 of 1", "none") in shown


async def test_one_that_cannot_be_forced_says_why(tmp_path: Path) -> None:
    mute: Any = Script(
        token_scores=lambda request: TokenScores(request.number, problem="it does not tell")
    )
    check = await checked(tmp_path, mute, Script(), "One?")
    assert (LEFT, TEACHER_FORCING_BATCH, "–", "it does not tell") in rows(check.results)


def test_what_was_not_reached_is_told() -> None:
    first, second, *_ = rows([AgreementResult("A", REPEATED, 0, 5, None)])
    assert first == ("A", REPEATED, "1 of 1", "none")
    assert second[2:] == ("–", "not reached")


def test_on_the_narrowest_screen_each_condition_keeps_to_its_line() -> None:
    found = [AgreementResult("NF4", name, 0, 1000, 998) for name in CONDITIONS]
    lines = printed(blocks(found), 66).splitlines()  # of the dialog, on 80 columns
    shown = [line.split(" 0 of 1 ")[0].strip() for line in lines if "token 999 of 1000" in line]
    assert shown == list(CONDITIONS)
