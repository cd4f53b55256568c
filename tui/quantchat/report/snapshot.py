"""A snapshot as terminal output: results, what ran, and each turn with figures and answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from quantchat.document.document import (
    BLANK,
    Block,
    Cell,
    Role,
    Row,
    Table,
    Verbatim,
    paragraph,
    row,
    variant_table,
)
from quantchat.document.figures import ORDERS, UNKNOWN, milliseconds, number, seconds, thoughts
from quantchat.document.snapshot_tables import header, memory_table, variants_table
from quantchat.features.agreement.turn_text import cross_perplexity_text, divergence_text
from quantchat.features.load_test import tables as load_tables
from quantchat.features.measure import tables as measure_tables
from quantchat.features.pick import tables as pick_tables
from quantchat.features.score import tables as score_tables
from quantchat.features.tasks import tables as tasks_tables
from quantchat.features.votes import tables as votes_tables
from quantchat.snapshot.run_diff import cpu_threads
from quantchat.snapshot.schema import AnswerRecord, Snapshot, TurnRecord
from quantchat.snapshot.votes import VotingRecord
from quantchat.wire.messages import NO_ID


def blocks(snapshot: Snapshot) -> list[Block]:
    """Return all of `snapshot`: the machine, the results, what ran, its memory, each turn."""
    parts = [*header(snapshot), *_results(snapshot), variants_table(snapshot)]
    if any(variant.ledger for variant in snapshot.variants):
        parts.append(memory_table(snapshot))
    for turn in snapshot.turns:
        parts += [BLANK, *turn_blocks(turn, snapshot.voting), *answers(turn)]
    return parts


def _results(snapshot: Snapshot) -> list[Block]:
    """Return the results of a measurement, votes, a score, tasks, a pick or a load test.

    For a chat the list is empty.
    """
    parts: list[Block] = []
    if snapshot.measurement is not None:
        parts += [BLANK, *measure_tables.blocks(snapshot)]
        parts += measure_tables.prompts_table(snapshot)
    if snapshot.voting is not None:
        parts += votes_tables.blocks(snapshot)
    if snapshot.score is not None:
        parts += score_tables.blocks(snapshot.score)
    if snapshot.evaluation is not None:
        parts += tasks_tables.blocks(snapshot.evaluation)
    if snapshot.pick is not None:
        parts += [BLANK, *pick_tables.blocks(snapshot.pick)]
    if snapshot.load_test is not None:
        parts += load_tables.blocks(snapshot.load_test)
    return parts


# ------------------------------------------------------------ one turn

_REASONS = {
    "eos": "end of the answer",
    "length": "maximum length reached",
    "stop": "stopped",
    "stop_string": "stop string",
    "eos_or_stop_string": "end of the answer or stop string, the server does not tell which",
    "context": "context full",
    "failed": "failed",
}
"""`AnswerRecord.reason`, why an answer ended → the text that is printed for it."""


def _output(answer: AnswerRecord) -> str:
    tokens, arrived = answer.timing.output_tokens, len(answer.times_ns)
    thought = answer.thought_tokens
    own = f", {thought} of them thoughts" if thought > 0 else ", with thoughts" if thought else ""
    if tokens < 0:
        return f"{arrived} chunks, tokens not counted{own if thought < 0 else ''}"
    return f"{tokens} tokens" + (f" in {arrived} chunks" if NO_ID in answer.ids else "") + own


def turn_name(turn: TurnRecord, voting: VotingRecord | None = None) -> str:
    """Return the name of a turn in words.

    A measured turn is named by its round and prompt, a blind turn by the position of its vote, any
    other turn by its number. (The numbers of measured and blind turns are internal.)
    """
    if turn.round is not None:
        return f"Round {turn.round}, prompt {UNKNOWN if turn.task is None else turn.task}"
    blind = [vote.turn for vote in voting.votes] if voting else []
    if turn.number in blind:
        return f"Blind turn {blind.index(turn.number) + 1}"
    return f"Turn {turn.number}"


def turn_blocks(turn: TurnRecord, voting: VotingRecord | None = None) -> list[Block]:
    """Return the name of a turn, the divergence of its answers, and its figures."""
    title = turn_name(turn, voting)
    if turn.divergence_point is not None:
        title += f": {divergence_text(turn)}"
    crossed = cross_perplexity_text(turn)
    return [
        paragraph((title, "heading")),
        *([paragraph(crossed)] if crossed else []),
        turn_table(turn),
    ]


def turn_table(turn: TurnRecord) -> Table:
    """Return a table of latency and throughput of one turn, with the order of the answers."""
    answers = turn.answers
    rows = [
        row("prompt", answers, _prompt_tokens),
        row("output", answers, _output),
        _row_with_order("TTFT", answers, lambda a: milliseconds(a.timing.ttft_ms)),
        *_first_answer(answers),
        _row_with_order("prefill throughput", answers, lambda a: _rate(a.timing.prefill_tok_s)),
        _row_with_order("ITL p50 · p95 · p99", answers, _itl),
        _row_with_order("TPOT", answers, lambda a: milliseconds(a.timing.tpot_ms)),
        _row_with_order("decode throughput", answers, lambda a: _rate(a.timing.decode_tok_s)),
        _row_with_order(
            "end-to-end throughput", answers, lambda a: _rate(a.timing.end_to_end_tok_s)
        ),
        row("draft acceptance", answers, _drafts),
        row("energy", answers, _energy),
        row("CPU threads", answers, cpu_threads),
        row("ended by", answers, _end_reason),
    ]
    return variant_table("", [answer.variant for answer in answers], rows)


def _first_answer(answers: Sequence[AnswerRecord]) -> list[Row]:
    if not any(answer.thoughts for answer in answers):
        return []  # it would repeat TTFT
    return [_row_with_order("TTFA", answers, lambda a: milliseconds(a.timing.ttfa_ms))]


def answers(turn: TurnRecord) -> list[Block]:
    """Return the prompt and what each variant answered, in full."""
    parts = _headed_text("prompt", turn.prompt)
    for answer in turn.answers:
        if answer.thoughts:
            title = f"{answer.variant}, {thoughts(answer.thought_tokens)}"
            parts += [BLANK, *_headed_text(title, answer.thoughts, "quiet")]
        parts += [BLANK, *_headed_text(answer.variant, answer.text)]
    return parts


# ------------------------------------------------------------ cells


def _row_with_order(
    name: str, answers: Iterable[AnswerRecord], read: Callable[[AnswerRecord], str]
) -> Row:
    return Cell(name), [_with_order(read(answer), answer.order) for answer in answers]


def _with_order(figure: str, order: str) -> Cell:
    return Cell(figure) if figure == UNKNOWN else Cell(figure, ORDERS[order])


def _headed_text(who: str, text: str, role: Role = "plain") -> list[Block]:
    return [paragraph((f"{who}:", "heading")), Verbatim(text, role)]


def _prompt_tokens(answer: AnswerRecord) -> str:
    if not answer.prompt_tokens:  # not started yet, or not reported by the server
        return UNKNOWN
    cached = f", {answer.cached_tokens} of them from the KV cache" if answer.cached_tokens else ""
    return f"{answer.prompt_tokens} tokens{cached}"


def _drafts(answer: AnswerRecord) -> str:
    drafts = answer.drafts
    if drafts is None or drafts.acceptance is None:
        return ""
    return (
        f"{drafts.acceptance:.0f} % ({drafts.accepted} of {drafts.drafted}), "
        f"{number(drafts.mean_length)} tokens per pass"
    )


def _energy(answer: AnswerRecord) -> str:
    if answer.energy is None:
        return ""
    over = f"{number(answer.energy.joules)} J over {seconds(answer.energy.seconds)}"
    each = answer.energy.per_token(len(answer.ids))
    return f"{UNKNOWN} ({over})" if each is None else f"{number(each)} J/token ({over})"


def _itl(answer: AnswerRecord) -> str:
    itl = answer.timing.itl_ms
    return f"{number(itl.p50)} · {number(itl.p95)} · {number(itl.p99)} ms" if itl else UNKNOWN


def _rate(tokens_per_s: float | None) -> str:
    return UNKNOWN if tokens_per_s is None else f"{number(tokens_per_s)} tok/s"


def _end_reason(answer: AnswerRecord) -> str:
    if answer.failure is not None:
        return f"failed: {answer.failure.reason}"
    return _REASONS.get(answer.reason, answer.reason) or f"not finished ({answer.state})"
