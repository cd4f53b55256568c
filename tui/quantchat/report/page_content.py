"""What a report says, before it is HTML or Markdown: all text neutral, none of it escaped yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quantchat.document.drawing import Plot
from quantchat.document.figures import ORDERS
from quantchat.document.series import has_two_sides, reported_turns
from quantchat.document.snapshot_tables import header, memory_table, variants_table
from quantchat.features.measure.headline import headline
from quantchat.features.measure.prompt_table import per_prompt
from quantchat.features.measure.tables import (
    CONTENDED,
    failures,
    flags,
    gap_lines,
    how,
    ratios_table,
)
from quantchat.features.score import tables as score
from quantchat.features.tasks import tables as evaluation
from quantchat.features.votes import tables as votes
from quantchat.report.page_answers import ToldTurn, turns
from quantchat.report.page_tables import Grid, differences, grid, overview
from quantchat.report.plots import plots
from quantchat.snapshot.compare import compare_runs
from quantchat.snapshot.compared_sides import Run
from quantchat.snapshot.evaluation import obstacles as evaluation_obstacles
from quantchat.snapshot.run_diff import asked_for
from quantchat.snapshot.schema import Snapshot
from quantchat.snapshot.score import obstacles
from quantchat.text import one_line

_CHAT = "a chat: each figure is of one answer, not of rounds, and has no interval"


@dataclass(frozen=True)
class Section:
    """One snapshot."""

    anchor: str
    title: str
    file: str
    facts: list[str]
    doubts: list[str]
    """What speaks against the figures."""
    results: list[Grid]
    """B against A, each prompt, a score's tables and the votes; none of a chat."""
    said: list[str]
    """The result in words, and percentiles of the pooled ITL, a line a side."""
    plots: list[Plot]
    ran: list[Grid]
    """What ran, and its memory."""
    turns: list[ToldTurn]


@dataclass(frozen=True)
class Report:
    """The whole report."""

    title: str
    overview: list[Grid]
    """Of several snapshots: a line for each, and what differed between them."""
    doubts: list[str]
    """Why they cannot be compared with each other."""
    sections: list[Section]


def content(snapshots: Sequence[tuple[str, Snapshot]]) -> Report:
    """Return what is to be said of `snapshots`, each with the name of its file."""
    sections = [_section(number, *each) for number, each in enumerate(snapshots, start=1)]
    if len(sections) == 1:
        return Report(sections[0].title, [], [], sections)
    tables, doubts = [overview(snapshots)], []
    if all(has_two_sides(snapshot) for _, snapshot in snapshots):
        compared = compare_runs([Run(*each) for each in snapshots], force=True)
        doubts = [f"not comparable: {one_line(reason)}" for reason in compared.obstacles]
        tables += [differences(compared)] if compared.differences else []
    scores = [snapshot.score for _, snapshot in snapshots if snapshot.score]
    doubts += [f"scores not comparable: {one_line(reason)}" for reason in obstacles(scores)]
    done = [snapshot.evaluation for _, snapshot in snapshots if snapshot.evaluation]
    against = evaluation_obstacles(done)
    doubts += [f"evaluations not comparable: {one_line(reason)}" for reason in against]
    return Report(f"{len(sections)} comparisons", tables, doubts, sections)


def _section(number: int, file: str, snapshot: Snapshot) -> Section:
    title, *facts = header(snapshot).plain.split("\n")
    return Section(
        anchor=f"snapshot-{number}",
        title=title or "(no name)",
        file=one_line(file),
        facts=[
            *facts,
            *_asked(snapshot),
            *(score.facts(snapshot.score) if snapshot.score else []),
            *(evaluation.facts(snapshot.evaluation) if snapshot.evaluation else []),
            *votes.result(snapshot),
        ],
        doubts=_doubts(snapshot),
        results=_results(snapshot),
        said=[*filter(None, [headline(snapshot)]), *gap_lines(snapshot)]
        if snapshot.measurement
        else [],
        plots=plots(snapshot),
        ran=[
            one
            for one in (grid(variants_table(snapshot)), grid(memory_table(snapshot)))
            if one.rows
        ],
        turns=turns(snapshot),
    )


def _results(snapshot: Snapshot) -> list[Grid]:
    found = []
    if snapshot.measurement is not None and has_two_sides(snapshot):
        title = f"B against A, {ORDERS[snapshot.measurement.order]}"
        found.append(grid(ratios_table(snapshot), title))
    prompts = per_prompt(snapshot)
    scored = score.tables(snapshot.score) if snapshot.score else ()
    done = evaluation.tables(snapshot.evaluation) if snapshot.evaluation else ()
    voted = [votes.table(snapshot)] if snapshot.voting else []
    return [*found, *([grid(prompts)] if prompts else []), *map(grid, (*scored, *done, *voted))]


def _doubts(snapshot: Snapshot) -> list[str]:
    measurement = snapshot.measurement
    scored = score.doubts(snapshot.score) if snapshot.score else []
    scored += evaluation.doubts(snapshot.evaluation) if snapshot.evaluation else []
    if measurement is None:
        chat = snapshot.turns or not (snapshot.score or snapshot.evaluation)
        return [*([_CHAT] if chat else []), *scored]
    return [
        *scored,
        *([CONTENDED] if measurement.order == "together" else []),
        *(["stopped before the end"] if measurement.stopped else []),
        *flags(snapshot),
        *filter(None, [failures(snapshot)]),
    ]


def _asked(snapshot: Snapshot) -> list[str]:
    """How it was measured, and how each answer was asked for."""
    requests = [a.request for t in reported_turns(snapshot) for a in t.answers if a.request]
    lines = [f"measured {how(snapshot)}"] if snapshot.measurement else []
    asked = ", or ".join(dict.fromkeys(map(asked_for, requests)))
    lines += [f"asked for: {asked}"] if asked else []
    systems = dict.fromkeys(request.system for request in requests if request.system)
    return lines + [f"system prompt: {one_line(system)}" for system in systems]
