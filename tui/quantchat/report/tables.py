"""One snapshot as tables, and the list of snapshots (Rich).

Everything that comes from a model, a profile or a file is neutralised and put in as `Text`, which
Rich never parses as markup.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from quantchat.metrics.gpus import GpuSample
from quantchat.metrics.memory import SOURCES
from quantchat.report import score, votes
from quantchat.report.figures import UNKNOWN, load_parts, milliseconds, number, seconds, size
from quantchat.report.parting import parts_at
from quantchat.report.surprise import forced
from quantchat.snapshot.recovered import is_recovered
from quantchat.snapshot.schema import AnswerRecord, Snapshot, TurnRecord, VariantRecord
from quantchat.snapshot.store import Listed
from quantchat.text import neutralise, one_line
from quantchat.worker.protocol import NO_ID

ORDERS = {"together": "contended", "in-turn": "in turn"}
"""How a figure came about, to stand beside it."""

_REASONS = {
    "eos": "end of the answer",
    "length": "longest answer asked for",
    "stop": "stopped",
    "context": "context full",
    "failed": "failed",
}

_Row = tuple[str, list[Text]]
_T = TypeVar("_T")


def render(snapshot: Snapshot) -> Group:
    """All of it: where, what ran, memory, the score, each turn with its figures and answers."""
    parts: list[RenderableType] = [header(snapshot), variants_table(snapshot)]
    if any(variant.ledger for variant in snapshot.variants):
        parts.append(memory_table(snapshot))
    if snapshot.voting is not None:
        parts.append(votes.render(snapshot))
    if snapshot.score is not None:
        parts.append(score.render(snapshot.score))
    if snapshot.evaluation is not None:
        from quantchat.report import evaluation  # which takes its words from here

        parts.append(evaluation.render(snapshot.evaluation))
    for turn in snapshot.turns:
        parts += [Text(), turn_table(turn), answers(turn)]
    return Group(*parts)


def header(snapshot: Snapshot) -> Text:
    """Name, time and machine."""
    environment, device = snapshot.environment, snapshot.environment.device
    host = device.host
    lines = [
        f"saved {when(snapshot.created)} by quantchat {snapshot.quantchat}",
        f"{environment.python} on {environment.os}",
        f"{host.cpu}, {host.cores} cores, "
        f"RAM {size(host.ram_used)} of {size(host.ram_total)} in use",
        *(_gpu(gpu, device.driver) for gpu in device.gpus),
    ]
    if device.no_gpu:
        lines.append(f"no GPU: {device.no_gpu}")
    text = Text(one_line(snapshot.name), style="bold")
    for line in lines:
        text.append(f"\n{one_line(line)}", style="not bold")
    return text


def variants_table(snapshot: Snapshot) -> Table:
    """What really ran, not what was asked for."""
    variants = [v for v in snapshot.variants if v.resolved or v.failure]
    rows = [
        _row("engine", variants, lambda v: v.resolved and v.resolved.engine),
        _row("model", variants, lambda v: v.resolved and v.resolved.model),
        _row("architecture", variants, lambda v: v.resolved and v.resolved.architecture),
        _row("kernel", variants, lambda v: v.resolved and v.resolved.kernel),
        _row("dtype", variants, lambda v: v.resolved and v.resolved.dtype),
        _row("device", variants, _device),
        _row("attention", variants, lambda v: v.resolved and v.resolved.attention),
        _row("caution", variants, _caution),
        _row("decoding", variants, lambda v: v.resolved and v.resolved.decode),
        _row("parameters", variants, lambda v: v.resolved and _count(v.resolved.parameters)),
        _row("context", variants, _context),
        _row("prompts", variants, _prompts),
        _row("checkpoint", variants, lambda v: v.resolved and v.resolved.checkpoint_hash[:12]),
        _row("adapter", variants, _adapter),
        _row("libraries", variants, _libraries),
        _row("load time", variants, _load),
        _row("note", variants, lambda v: v.note),
        _row("failure", variants, lambda v: v.failure and v.failure.reason),
    ]
    return _table("What ran", [variant.label for variant in variants], rows)


def memory_table(snapshot: Snapshot) -> Table:
    """The memory ledger of each variant that was loaded."""
    variants = [v for v in snapshot.variants if v.ledger]
    rows = [
        _row("weights", variants, lambda v: v.ledger and size(v.ledger.weights)),
        _row("  by dtype", variants, lambda v: v.ledger and _sizes(v.ledger.weights_by_dtype)),
        _row(
            "  the quantization's own", variants, lambda v: v.ledger and _sizes(v.ledger.overhead)
        ),
        _row("  by device", variants, lambda v: v.ledger and _sizes(v.ledger.weights_by_device)),
        _row("  predicted", variants, _predicted),
        _row("KV cache", variants, lambda v: v.ledger and size(v.ledger.kv_cache)),
        _row("other live tensors", variants, lambda v: v.ledger and size(v.ledger.other_live)),
        _row("allocator slack", variants, lambda v: v.ledger and size(v.ledger.slack)),
        _row(
            "reserved, by device",
            variants,
            lambda v: v.ledger and _sizes(v.ledger.reserved_by_device),
        ),
        _row("non-torch", variants, lambda v: v.ledger and size(v.ledger.non_torch)),
        _row("process total", variants, lambda v: v.ledger and size(v.ledger.process)),
        _row("peak", variants, lambda v: _peak(v, snapshot.turns)),
        _row("worker holds", variants, _held),
        _row("measured", variants, _source),
    ]
    return _table("Memory", [variant.label for variant in variants], rows)


def _context(variant: VariantRecord) -> str | None:
    length = variant.resolved.context_length if variant.resolved else 0
    return f"{length} tokens" if length > 0 else None


def _output(answer: AnswerRecord) -> str:
    tokens, arrived = answer.timing.output_tokens, len(answer.times_ns)
    if tokens < 0:
        return f"{arrived} chunks, tokens not counted"
    return f"{tokens} tokens" + (f" in {arrived} chunks" if NO_ID in answer.ids else "")


def turn_table(turn: TurnRecord) -> Table:
    """Latency and throughput of one turn, with how it ran beside each figure."""
    given = turn.answers
    rows = [
        _row("prompt", given, _prompt_tokens),
        _row("output", given, _output),
        _timed("TTFT", given, lambda a: milliseconds(a.timing.ttft_ms)),
        _timed("prefill throughput", given, lambda a: _rate(a.timing.prefill_tok_s)),
        _timed("ITL p50 · p95 · p99", given, _itl),
        _timed("TPOT", given, lambda a: milliseconds(a.timing.tpot_ms)),
        _timed("decode throughput", given, lambda a: _rate(a.timing.decode_tok_s)),
        _timed("end-to-end throughput", given, lambda a: _rate(a.timing.end_to_end_tok_s)),
        _row("energy", given, _energy),
        _row("CPU threads", given, _threads),
        _row("ended by", given, _ended),
    ]
    title = f"Turn {turn.number}"
    if turn.divergence_point is not None:
        title += f": {parts_at(turn)}"
    if read := forced(turn):
        title += f"\n{read}"
    return _table(title, [answer.variant for answer in given], rows)


def answers(turn: TurnRecord) -> Text:
    """The prompt and what each variant said, in full."""
    text = _said("prompt", turn.prompt)
    for answer in turn.answers:
        text.append("\n\n")
        text.append_text(_said(answer.variant, answer.text))
    return text


def list_table(listed: Iterable[Listed]) -> Table:
    """The list of snapshots, with the problem of each that cannot be read."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("file", "saved", "profile", "shown", "turns"):
        table.add_column(name, overflow="fold", justify="right" if name == "turns" else "left")
    for line in listed:
        file = Text(one_line(line.path.name))
        if line.problem:
            table.add_row(file, "", Text(f"broken: {one_line(line.problem)}", style="red"))
            continue
        shown = " | ".join(one_line(label) for label in line.variants)
        table.add_row(
            file,
            Text(one_line(when(line.created))),
            Text(one_line(line.name)) + recovered_mark(line.path),
            Text(shown),
            Text(line.without if line.without and not line.turns else str(line.turns)),
        )
    return table


def recovered_mark(path: Path) -> Text:
    """What tells a conversation that was never saved by its user."""
    return Text("  recovered", style="yellow") if is_recovered(path) else Text()


def when(created: str) -> str:
    """A saved time, to the minute: `2026-11-03 14:25 +0100`; as it stands where it is none."""
    try:
        return f"{datetime.fromisoformat(created):%Y-%m-%d %H:%M %z}"
    except ValueError:
        return created


# ------------------------------------------------------------ cells


def _table(title: str, labels: Iterable[str], rows: Iterable[_Row]) -> Table:
    """Figures down, variants across. Rows in which no cell says anything are left out."""
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", style="dim")
    for label in labels:
        table.add_column(Text(one_line(label)), overflow="fold")
    for name, cells in rows:
        if any(cell.plain for cell in cells):
            table.add_row(Text(name), *cells)
    return table


def _row(name: str, given: Iterable[_T], tell: Callable[[_T], object]) -> _Row:
    return name, [Text(one_line(str(tell(one) or ""))) for one in given]


def _timed(name: str, given: Iterable[AnswerRecord], tell: Callable[[AnswerRecord], str]) -> _Row:
    return name, [_with_order(tell(answer), answer.order) for answer in given]


def _with_order(figure: str, order: str) -> Text:
    text = Text(figure)
    return text if figure == UNKNOWN else text.append(f" {ORDERS[order]}", style="dim")


def _said(who: str, text: str) -> Text:
    return Text.assemble((f"{one_line(who)}:", "bold"), "\n", neutralise(text))


def _gpu(gpu: GpuSample, driver: str | None) -> str:
    parts = [
        f"GPU {gpu.index}: {gpu.name}",
        f"driver {driver or UNKNOWN}",
        f"VRAM {size(gpu.memory_used)} of {size(gpu.memory_total)} in use",
    ]
    if gpu.sm_clock_mhz is not None:
        parts.append(f"SM clock {gpu.sm_clock_mhz} MHz")
    if gpu.throttle:
        parts.append(f"held down by {', '.join(gpu.throttle)}")
    return ", ".join(parts)


def _adapter(variant: VariantRecord) -> str | None:
    ran = variant.resolved
    return f"{ran.adapter} ({ran.adapter_hash[:12]})" if ran is not None and ran.adapter else None


def _caution(variant: VariantRecord) -> str:
    """What could have run any code; said in words, for it is never to be overlooked."""
    ran = variant.resolved
    allowed = [
        ("THE MODEL'S OWN CODE RAN (trust_remote_code)", ran is not None and ran.trusted_code),
        ("PICKLED WEIGHTS WERE ALLOWED (allow_pickle)", ran is not None and ran.pickle_allowed),
    ]
    return ", ".join(words for words, true in allowed if true)


def _device(variant: VariantRecord) -> str:
    if variant.resolved is None:
        return ""
    threads = f", {variant.resolved.threads} threads" if variant.resolved.device == "cpu" else ""
    return f"{variant.resolved.where} ({variant.resolved.device_name}{threads})"


def _prompts(variant: VariantRecord) -> str:
    if variant.resolved is None:
        return ""
    return "chat template" if variant.resolved.chat_template else "plain completion, no template"


def _libraries(variant: VariantRecord) -> str:
    if variant.resolved is None:
        return ""
    return ", ".join(f"{name} {version}" for name, version in variant.resolved.libraries.items())


def _load(variant: VariantRecord) -> str:
    load = variant.load
    if load is None:
        return ""
    device = variant.resolved.device if variant.resolved else ""
    parts = load_parts(device, load.import_s, load.weights_s, load.warmup_s)
    split = ", ".join(f"{name} {seconds(took)}" for name, took in parts)
    return f"{seconds(load.total_s)} ({split})"


def _sizes(parts: dict[str, int]) -> str:
    largest_first = sorted(parts.items(), key=lambda part: -part[1])
    return ", ".join(f"{name} {size(count)}" for name, count in largest_first if count)


def _peak(variant: VariantRecord, turns: Iterable[TurnRecord]) -> str:
    """The most it held, and while it did what."""
    ledger = variant.ledger
    if ledger is None or ledger.peak < 0:
        return ""
    if ledger.peak_at_ns < 0:
        return size(ledger.peak)
    begun = [
        (answer.received_ns, turn)
        for turn in turns
        for answer in turn.answers
        if answer.variant == variant.label and 0 < answer.received_ns <= ledger.peak_at_ns
    ]
    if not begun:
        return f"{size(ledger.peak)}, while loading"
    _, turn = max(begun, key=lambda one: one[0])
    measured = f"round {turn.round}, prompt {turn.task}"
    return f"{size(ledger.peak)}, in {measured if turn.round else f'turn {turn.number}'}"


def _predicted(variant: VariantRecord) -> str:
    """What the model's headers let expect, and how far that is off."""
    predicted, ledger = variant.predicted, variant.ledger
    if predicted is None or ledger is None or ledger.weights <= 0:
        return ""
    return f"{size(predicted.weights)} ({predicted.weights / ledger.weights - 1:+.1%})"


def _held(variant: VariantRecord) -> str:
    """The worker's figure where it is another than the process' total."""
    memory, ledger = variant.memory, variant.ledger
    if memory is None or ledger is None or memory.bytes in (None, ledger.process):
        return ""
    return size(memory.bytes)


def _source(variant: VariantRecord) -> str:
    if variant.memory is None:
        return ""
    source = SOURCES.get(variant.memory.source, variant.memory.source)
    return f"{source}: {variant.memory.reason}" if variant.memory.reason else source


def _prompt_tokens(answer: AnswerRecord) -> str:
    cached = f", {answer.cached_tokens} of them from the KV cache" if answer.cached_tokens else ""
    return f"{answer.prompt_tokens} tokens{cached}"


def _threads(answer: AnswerRecord) -> str:
    """Where it ran on the CPU: they decide more than anything else how fast."""
    on_cpu = answer.ledger is not None and answer.ledger.device == "cpu"
    return str(answer.request.threads) if answer.request and on_cpu else ""


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


def _count(parameters: int) -> str:
    if parameters <= 0:
        return ""
    return f"{parameters / 1e9:.2f} B" if parameters >= 1e9 else f"{parameters / 1e6:.1f} M"
