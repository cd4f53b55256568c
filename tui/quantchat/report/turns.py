"""One turn of a snapshot: how it is called, its figures as a table, what was said (Rich)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from rich.table import Table
from rich.text import Text

from quantchat.document.figures import ORDERS, UNKNOWN, milliseconds, number, seconds, thoughts
from quantchat.document.variant_table import Row, row, variant_table
from quantchat.features.agreement.divergence_text import divergence_text
from quantchat.features.agreement.surprisal_text import cross_perplexity_text
from quantchat.snapshot.run_diff import cpu_threads
from quantchat.snapshot.schema import AnswerRecord, TurnRecord
from quantchat.snapshot.votes import VotingRecord
from quantchat.text import neutralise, one_line
from quantchat.wire.messages import NO_ID

_REASONS = {
    "eos": "end of the answer",
    "length": "longest answer asked for",
    "stop": "stopped",
    "context": "context full",
    "failed": "failed",
}


def _output(answer: AnswerRecord) -> str:
    tokens, arrived = answer.timing.output_tokens, len(answer.times_ns)
    thought = answer.thought_tokens
    own = f", {thought} of them thoughts" if thought > 0 else ", with thoughts" if thought else ""
    if tokens < 0:
        return f"{arrived} chunks, tokens not counted{own if thought < 0 else ''}"
    return f"{tokens} tokens" + (f" in {arrived} chunks" if NO_ID in answer.ids else "") + own


def name(turn: TurnRecord, voting: VotingRecord | None = None) -> str:
    """How a turn is called: by its round and prompt, by its place among the votes, or its number.

    Of a measurement and of votes the number is not the user's: it tells late events apart.
    """
    if turn.round is not None:
        return f"Round {turn.round}, prompt {UNKNOWN if turn.task is None else turn.task}"
    blind = [vote.turn for vote in voting.votes] if voting else []
    if turn.number in blind:
        return f"Blind turn {blind.index(turn.number) + 1}"
    return f"Turn {turn.number}"


def turn_table(turn: TurnRecord, voting: VotingRecord | None = None) -> Table:
    """Latency and throughput of one turn, with how it ran beside each figure."""
    given = turn.answers
    rows = [
        row("prompt", given, _prompt_tokens),
        row("output", given, _output),
        _timed("TTFT", given, lambda a: milliseconds(a.timing.ttft_ms)),
        _timed("prefill throughput", given, lambda a: _rate(a.timing.prefill_tok_s)),
        _timed("ITL p50 · p95 · p99", given, _itl),
        _timed("TPOT", given, lambda a: milliseconds(a.timing.tpot_ms)),
        _timed("decode throughput", given, lambda a: _rate(a.timing.decode_tok_s)),
        _timed("end-to-end throughput", given, lambda a: _rate(a.timing.end_to_end_tok_s)),
        row("energy", given, _energy),
        row("CPU threads", given, cpu_threads),
        row("ended by", given, _ended),
    ]
    title = name(turn, voting)
    if turn.divergence_point is not None:
        title += f": {divergence_text(turn)}"
    if read := cross_perplexity_text(turn):
        title += f"\n{read}"
    return variant_table(title, [answer.variant for answer in given], rows)


def answers(turn: TurnRecord) -> Text:
    """The prompt and what each variant said, in full."""
    text = _said("prompt", turn.prompt)
    for answer in turn.answers:
        text.append("\n\n")
        if answer.thoughts:
            head = f"{answer.variant}, {thoughts(answer.thought_tokens)}"
            text.append_text(_said(head, answer.thoughts, "dim")).append("\n\n")
        text.append_text(_said(answer.variant, answer.text))
    return text


# ------------------------------------------------------------ cells


def _timed(name: str, given: Iterable[AnswerRecord], tell: Callable[[AnswerRecord], str]) -> Row:
    return name, [_with_order(tell(answer), answer.order) for answer in given]


def _with_order(figure: str, order: str) -> Text:
    text = Text(figure)
    return text if figure == UNKNOWN else text.append(f" {ORDERS[order]}", style="dim")


def _said(who: str, text: str, style: str = "") -> Text:
    return Text.assemble((f"{one_line(who)}:", "bold"), "\n", (neutralise(text), style))


def _prompt_tokens(answer: AnswerRecord) -> str:
    if not answer.prompt_tokens:  # it was not begun, or a server does not tell
        return UNKNOWN
    cached = f", {answer.cached_tokens} of them from the KV cache" if answer.cached_tokens else ""
    return f"{answer.prompt_tokens} tokens{cached}"


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


def _ended(answer: AnswerRecord) -> str:
    if answer.failure is not None:
        return f"failed: {answer.failure.reason}"
    return _REASONS.get(answer.reason, answer.reason) or f"not over ({answer.state})"
