"""Compare several snapshots: choose the kind of comparison, and return it as document blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from quantchat.document import model_results
from quantchat.document.document import Block
from quantchat.document.model_results import Result
from quantchat.features.load_test import tables as load_tables
from quantchat.features.score import tables as score_tables
from quantchat.features.tasks import tables as task_tables
from quantchat.features.votes import tables as vote_tables
from quantchat.report import comparison
from quantchat.snapshot import evaluation, load_test, score
from quantchat.snapshot.compare import compare_runs
from quantchat.snapshot.compared_sides import Run
from quantchat.snapshot.load_test import LoadTestRecord
from quantchat.snapshot.pooled_votes import pool_votes
from quantchat.snapshot.run_diff import raise_unless_forced
from quantchat.snapshot.schema import Snapshot

Saved = Sequence[tuple[str, Snapshot]]
"""Snapshots, each with the name of its file."""

ResultKind = Literal["scores", "evaluations", "load tests"]
"""Results that are compared as they are: scored texts, evaluations (tasks), or load tests."""

Kind = Literal["scores", "evaluations", "load tests", "votes", "runs"]
"""What is compared: results as above, blind votes, or runs (measurements)."""


def kind_of(saved: Saved) -> Kind:
    """Return which comparison fits `saved`.

    Scores, evaluations or load tests are compared if all snapshots have them, votes if any snapshot
    has them; a snapshot that also has a measurement does not count as one of these. Everything else
    is compared as runs.
    """
    if all(snapshot.score and not snapshot.measurement for _, snapshot in saved):
        return "scores"
    if all(snapshot.evaluation and not snapshot.measurement for _, snapshot in saved):
        return "evaluations"
    if all(snapshot.load_test and not snapshot.measurement for _, snapshot in saved):
        return "load tests"
    if any(snapshot.voting and not snapshot.measurement for _, snapshot in saved):
        return "votes"
    return "runs"


def _scores(saved: Saved, force: bool) -> tuple[list[Result[score.ScoreRecord]], list[str]]:
    found = [Result(file, snapshot, snapshot.score) for file, snapshot in saved if snapshot.score]
    return found, raise_unless_forced(
        score.obstacles([result.found for result in found]), force=force
    )


def _evaluations(
    saved: Saved, force: bool
) -> tuple[list[Result[evaluation.EvaluationRecord]], list[str]]:
    found = [
        Result(file, snapshot, snapshot.evaluation)
        for file, snapshot in saved
        if snapshot.evaluation
    ]
    return found, raise_unless_forced(
        evaluation.obstacles([result.found for result in found]), force=force
    )


def _load_tests(saved: Saved, force: bool) -> tuple[list[Result[LoadTestRecord]], list[str]]:
    found = [
        Result(file, snapshot, snapshot.load_test) for file, snapshot in saved if snapshot.load_test
    ]
    return found, raise_unless_forced(
        load_test.obstacles([result.found for result in found]), force=force
    )


def json_document(saved: Saved, kind: ResultKind, *, force: bool) -> dict[str, object]:
    """Return the comparison of such results as JSON values.

    Raises NotComparable if they are not comparable, unless `force` is set.
    """
    if kind == "scores":
        return model_results.json_document(*_scores(saved, force), "score")
    if kind == "load tests":
        return model_results.json_document(*_load_tests(saved, force), "load_test")
    return model_results.json_document(*_evaluations(saved, force), "evaluation")


def blocks(saved: Saved, *, force: bool) -> list[Block]:
    """Return the comparison of `saved`. Raises UserError if the snapshots are not comparable."""
    match kind_of(saved):
        case "scores":
            return score_tables.compared_blocks(*_scores(saved, force))
        case "evaluations":
            return task_tables.compared_blocks(*_evaluations(saved, force))
        case "load tests":
            return load_tables.compared_blocks(*_load_tests(saved, force))
        case "votes":
            return vote_tables.pooled_blocks(pool_votes(saved))
        case "runs":
            return comparison.blocks(compare_runs([Run(*one) for one in saved], force=force), [])
