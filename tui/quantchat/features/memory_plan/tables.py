"""A memory plan as tables (Rich)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from quantchat.document.figures import UNKNOWN, size
from quantchat.document.style import plain_table
from quantchat.estimate.memory import Estimate
from quantchat.features.memory_plan.plan import CONTESTED, Fit, MemoryPlan, RoomPlan, VariantPlan
from quantchat.text import one_line

_STYLES: dict[Fit, str] = {
    "fits": "green",
    "tight": "yellow",
    "cannot run": "bold red",
    "does not fit": "bold red",
    "not known": "yellow",
}

_Read = Callable[[Estimate], int]

_KINDS = ("scales", "zeros", "codebook", "indices")


def render(plan: MemoryPlan) -> Group:
    """What each variant will need, what the pair needs together, and what must be known of it."""
    parts: list[RenderableType] = [Text(one_line(plan.name), style="bold"), _table(plan)]
    parts += [_room(room) for room in plan.rooms]
    for variant in plan.variants:
        told = [*([variant.problem] if variant.problem else []), *variant.notes]
        parts += [Text(f"{one_line(variant.label)}: {one_line(line)}") for line in told]
    if plan.nothing_known:
        parts.append(Text("nothing is planned: of no variant is known what it needs", "yellow"))
    else:
        parts.append(Text("* an allowance: no file tells it", style="dim"))
    return Group(*parts)


def _table(plan: MemoryPlan) -> Table:
    table = plain_table()
    table.add_column("", style="dim")
    for variant in plan.variants:
        table.add_column(Text(one_line(variant.label)), justify="right", overflow="fold")
    _row(table, "device", plan.variants, lambda v: one_line(v.room.name))
    known = [variant.estimate for variant in plan.variants if variant.estimate]
    for name, read in _figures(known) if known else ():
        _row(table, name, plan.variants, _cell(read))
    return table


def _figures(known: list[Estimate]) -> Iterator[tuple[str, _Read]]:
    """The rows: a name, and what to read of an estimate."""
    yield "weights", lambda e: e.weights
    for kind in _KINDS:
        if any(kind in estimate.overhead for estimate in known):
            yield f"  {kind}", _overhead(kind)
    yield "  not quantized", lambda e: e.unquantized
    contexts = sorted({estimate.context_tokens for estimate in known})
    yield f"KV cache, {' or '.join(map(str, contexts))} tokens", lambda e: e.kv_cache
    yield "activations*", lambda e: e.activations
    yield "CUDA context, or Python and libraries*", lambda e: e.runtime
    yield "total", lambda e: e.total
    yield "peak, while loading*", lambda e: e.peak


def _overhead(kind: str) -> _Read:
    return lambda estimate: estimate.overhead.get(kind, 0)


def _cell(read: _Read) -> Callable[[VariantPlan], str]:
    return lambda variant: size(read(variant.estimate)) if variant.estimate else UNKNOWN


def _row(
    table: Table, name: str, variants: list[VariantPlan], tell: Callable[[VariantPlan], str]
) -> None:
    table.add_row(Text(name), *(Text(tell(variant)) for variant in variants))


def _room(one: RoomPlan) -> Text:
    room = one.room
    text = Text.assemble((one.fit, _STYLES[one.fit]), ": ")
    text.append(" and ".join(one_line(label) for label in one.labels))
    if room.unusable:
        return text.append(f" on {one_line(room.name)}: {one_line(room.unusable)}")
    if one.total is not None:
        text.append(f" need {size(one.total)}, {size(one.peak)} while loading;")
    else:
        text.append(":")
    if room.free is None:
        return text.append(f" nothing tells what is free on {one_line(room.name)}")
    text.append(f" {size(room.free)} of {size(room.total)} are free on {one_line(room.name)}")
    return text.append(f", {CONTESTED}") if one.contested else text
