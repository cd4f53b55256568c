"""A report of snapshots as a document: a section for each, and an overview if there are several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from quantchat.document.document import (
    Block,
    Cell,
    Column,
    Document,
    Facts,
    PagePart,
    Plots,
    Section,
    Table,
    Turns,
    paragraph,
    table,
    warnings,
)
from quantchat.document.figures import ORDERS, UNKNOWN, number, when
from quantchat.document.series import has_two_sides, how_compared, reported_turns
from quantchat.document.snapshot_tables import machine, memory_table, variants_table
from quantchat.features.load_test import tables as load_test
from quantchat.features.measure.tables import (
    CONTENDED,
    draft_lines,
    failures,
    gap_lines,
    how,
    prompts_table,
    ratio_texts,
    ratios_table,
)
from quantchat.features.pick import frontier
from quantchat.features.pick import tables as pick
from quantchat.features.score import tables as score
from quantchat.features.tasks import tables as tasks
from quantchat.features.votes import tables as votes
from quantchat.report.comparison import differences_table
from quantchat.report.conclusion import conclusion
from quantchat.report.glossary import glossary
from quantchat.report.plots import plots
from quantchat.report.turns import turns
from quantchat.snapshot.compare import compare_runs
from quantchat.snapshot.compared_sides import Run
from quantchat.snapshot.evaluation import obstacles as evaluation_obstacles
from quantchat.snapshot.load_test import obstacles as load_test_obstacles
from quantchat.snapshot.ratios import compare_sides
from quantchat.snapshot.run_diff import request_text
from quantchat.snapshot.schema import Snapshot
from quantchat.snapshot.score import obstacles as score_obstacles
from quantchat.text import one_line

_CHAT = "this is a chat: each figure is of a single answer and has no interval"

_Named = Sequence[tuple[str, Snapshot]]
"""Snapshots, each with the name of its file."""


def content(snapshots: _Named) -> Document:
    """Return the report of `snapshots`, each with the name of its file."""
    if len(snapshots) == 1:
        ((file, snapshot),) = snapshots
        parts = tuple(_parts(file, snapshot, ""))
        return Document(_title(snapshot), (), (Section("snapshot-1", "", parts), glossary()))
    sections = []
    for position, (file, snapshot) in enumerate(snapshots, start=1):
        anchor = _anchor(position)
        parts = tuple(_parts(file, snapshot, f"{anchor}-"))
        sections.append(Section(anchor, _title(snapshot), parts))
    title = f"{len(sections)} comparisons"
    return Document(title, tuple(_overview(snapshots)), (*sections, glossary()))


def _title(snapshot: Snapshot) -> str:
    return one_line(snapshot.name) or "(no name)"


def _anchor(position: int) -> str:
    return f"snapshot-{position}"


# ------------------------------------------------------------ several snapshots


def _overview(snapshots: _Named) -> list[Block]:
    """Return a table with a row for each snapshot, and how the snapshots differ.

    Reasons why they are not comparable are returned as warnings.
    """
    against, differed = [], []
    if all(has_two_sides(snapshot) for _, snapshot in snapshots):
        compared = compare_runs([Run(*each) for each in snapshots], force=True)
        against = [f"not comparable: {reason}" for reason in compared.obstacles]
        sides = [f"{column.number}: {column.label}" for column in compared.columns]
        differed = [differences_table(compared, sides)] if compared.differences else []
    scores = [snapshot.score for _, snapshot in snapshots if snapshot.score]
    against += [f"scores not comparable: {reason}" for reason in score_obstacles(scores)]
    done = [snapshot.evaluation for _, snapshot in snapshots if snapshot.evaluation]
    against += [f"evaluations not comparable: {reason}" for reason in evaluation_obstacles(done)]
    tests = [snapshot.load_test for _, snapshot in snapshots if snapshot.load_test]
    against += [f"load tests not comparable: {reason}" for reason in load_test_obstacles(tests)]
    return [_speeds(snapshots), *warnings(against), *differed]


def _speeds(snapshots: _Named) -> Table:
    """Return a table with the decode throughput of both sides of each snapshot, and B ÷ A."""
    headings = [Column(name) for name in ("snapshot", "saved", "how")]
    headings += [Column(name, right=True) for name in ("A", "B", "B ÷ A")]
    rows = [
        (
            Cell(f"{position}. {snapshot.name}", file, link=_anchor(position)),
            Cell(when(snapshot.created)),
            *_decoding(snapshot),
        )
        for position, (file, snapshot) in enumerate(snapshots, start=1)
    ]
    return table("Decode throughput", [*headings, Column("95 % interval")], rows)


def _job_of(snapshot: Snapshot) -> str:
    """Return the name of the job that made the snapshot; empty for a chat or a measurement."""
    jobs = (
        (snapshot.score, "a score"),
        (snapshot.evaluation, "an evaluation"),
        (snapshot.load_test, "a load test"),
    )
    return next((name for record, name in jobs if record), "")


def _decoding(snapshot: Snapshot) -> list[Cell]:
    labels = [*snapshot.shown, UNKNOWN, UNKNOWN][:2]
    how_measured = "a chat"
    if not snapshot.turns and (job := _job_of(snapshot)):
        how_measured = job
    texts = [UNKNOWN] * 4
    if snapshot.measurement is not None:
        order = ORDERS[snapshot.measurement.order]
        how_measured = how_compared(snapshot) if has_two_sides(snapshot) else order
        for row in compare_sides(snapshot) if has_two_sides(snapshot) else []:
            if row.name == "decode_tps":
                sides = (f"{number(side)} {row.unit}" for side in (row.a, row.b))
                texts = [*sides, *ratio_texts(row.ratio)]
    return [Cell(how_measured), *map(Cell, texts[:2], labels), *map(Cell, texts[2:])]


# ------------------------------------------------------------ one snapshot


def _parts(file: str, snapshot: Snapshot, stem: str) -> Iterator[PagePart]:
    """Yield the parts of a section; the names of its plots' files begin with `stem`."""
    if snapshot.pick:  # the verdict of a pick is about all variants, a conclusion about only two
        yield from pick.verdict(snapshot.pick)
    elif found := conclusion(snapshot):
        yield paragraph((found, "heading"))
    yield Facts((file, *_facts(snapshot)))
    if snapshot.pick:
        yield pick.candidates_table(snapshot.pick)
        yield from pick.limits_tables(snapshot.pick)
        yield from pick.dropped(snapshot.pick)
        if drawn := frontier.plots(snapshot.pick):
            yield Plots(tuple(replace(plot, name=f"{stem}{plot.name}") for plot in drawn))
    yield from _results(snapshot)
    if snapshot.measurement and (lines := [*gap_lines(snapshot), *draft_lines(snapshot)]):
        yield Facts(tuple(lines))
    yield from warnings(_warnings(snapshot))
    if drawn := plots(snapshot):
        yield Plots(tuple(replace(plot, name=f"{stem}{plot.name}") for plot in drawn))
    yield from (one for one in (variants_table(snapshot), memory_table(snapshot)) if one.rows)
    if shown := tuple(turns(snapshot)):
        yield Turns(shown)


def _facts(snapshot: Snapshot) -> list[str]:
    return [
        *machine(snapshot),
        *(pick.facts(snapshot.pick) if snapshot.pick else []),
        *_requests(snapshot),
        *(score.facts(snapshot.score) if snapshot.score else []),
        *(tasks.facts(snapshot.evaluation) if snapshot.evaluation else []),
        *(load_test.facts(snapshot.load_test) if snapshot.load_test else []),
        *votes.result(snapshot),
    ]


def _requests(snapshot: Snapshot) -> list[str]:
    """Return how the snapshot was measured, and the settings of its requests."""
    requests = [a.request for t in reported_turns(snapshot) for a in t.answers if a.request]
    lines = [f"measured {how(snapshot)}"] if snapshot.measurement else []
    settings = ", or ".join(dict.fromkeys(map(request_text, requests)))
    lines += [f"settings: {settings}"] if settings else []
    systems = dict.fromkeys(request.system for request in requests if request.system)
    return lines + [f"system prompt: {system}" for system in systems]


def _results(snapshot: Snapshot) -> Iterator[Block]:
    """Yield the ratios B ÷ A, each prompt's figures, the tables of a job, and the votes."""
    if snapshot.measurement is not None and has_two_sides(snapshot):
        title = f"B against A, {ORDERS[snapshot.measurement.order]}"
        yield replace(ratios_table(snapshot), title=title)
    yield from prompts_table(snapshot)
    if snapshot.score:
        yield from score.tables(snapshot.score)
    if snapshot.evaluation:
        yield from tasks.tables(snapshot.evaluation)
    if snapshot.load_test:
        yield from load_test.tables(snapshot.load_test)
    if snapshot.voting:
        yield votes.votes_table(snapshot)


def _warnings(snapshot: Snapshot) -> list[str]:
    measurement = snapshot.measurement
    judged = score.score_warnings(snapshot.score) if snapshot.score else []
    judged += tasks.evaluation_warnings(snapshot.evaluation) if snapshot.evaluation else []
    judged += load_test.load_warnings(snapshot.load_test) if snapshot.load_test else []
    if measurement is None:
        chat = snapshot.turns or not _job_of(snapshot)
        return [*([_CHAT] if chat else []), *judged]
    return [
        *judged,
        *([CONTENDED] if measurement.order == "together" else []),
        *(["stopped before the end"] if measurement.stopped else []),
        *measurement.flags,
        *filter(None, [failures(snapshot)]),
    ]
