"""A memory plan as a table, with notes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from quantchat.document.document import (
    Block,
    Cell,
    Column,
    Paragraph,
    Role,
    Table,
    Words,
    cells,
    paragraph,
)
from quantchat.document.figures import UNKNOWN, size
from quantchat.estimate.memory import Estimate
from quantchat.measuring.memory_plan import SHARED_GPUS_NOTE, DevicePlan, Fit, MemoryPlan

_ROLES: dict[Fit, Role] = {
    "fits": "good",
    "tight": "warning",
    "cannot run": "grave",
    "does not fit": "grave",
    "not known": "warning",
}
"""Fit → the role of its text."""

_Read = Callable[[Estimate], int]

_KINDS = ("scales", "zeros", "codebook", "indices")
"""Parts of a quantized weight besides its packed values: keys of `Estimate.overhead`."""


def blocks(plan: MemoryPlan) -> list[Block]:
    """Return what each variant needs, what the pair needs together, and the notes."""
    parts: list[Block] = [paragraph((plan.name, "heading")), _table(plan)]
    parts += [_fit_paragraph(device) for device in plan.devices]
    for variant in plan.variants:
        lines = [*([variant.problem] if variant.problem else []), *variant.notes]
        parts += [paragraph(f"{variant.label}: {line}") for line in lines]
    if plan.nothing_known:
        parts.append(paragraph(("no plan: no variant's memory could be estimated", "warning")))
    else:
        parts.append(paragraph(("* an assumed size: no file states it", "quiet")))
    return parts


def _table(plan: MemoryPlan) -> Table:
    variants = plan.variants
    rows = [(Cell("device"), *cells(variant.device.name for variant in variants))]
    known = [variant.estimate for variant in variants if variant.estimate]
    for name, read in _figures(known) if known else ():
        estimates = (variant.estimate for variant in variants)
        texts = (size(read(estimate)) if estimate else UNKNOWN for estimate in estimates)
        rows.append((name, *cells(texts)))
    for title, counts in (
        ("longest context that fits, tokens", [one.longest_context for one in variants]),
        ("contexts that fit at once", [one.largest_batch for one in variants]),
    ):
        if any(count is not None for count in counts):
            shown = (UNKNOWN if count is None else f"{count:,}" for count in counts)
            rows.append((Cell(title), *cells(shown)))
    columns = (Column(role="quiet"), *(Column(one.label, right=True) for one in variants))
    return Table("", columns, tuple(rows))


def _figures(known: list[Estimate]) -> Iterator[tuple[Cell, _Read]]:
    """Yield the name of each row, and the function that reads it from an estimate."""
    yield Cell("weights"), lambda e: e.weights
    for kind in _KINDS:
        if any(kind in estimate.overhead for estimate in known):
            yield Cell(kind, indent=2), _overhead(kind)
    yield Cell("not quantized", indent=2), lambda e: e.unquantized
    if any(estimate.draft for estimate in known):
        yield Cell("draft, with its KV cache"), lambda e: e.draft
    contexts = sorted({estimate.context_tokens for estimate in known})
    yield Cell(f"KV cache, {' or '.join(map(str, contexts))} tokens"), lambda e: e.kv_cache
    yield Cell("activations*"), lambda e: e.activations
    yield Cell("CUDA context, or Python and libraries*"), lambda e: e.runtime
    yield Cell("total"), lambda e: e.total
    yield Cell("peak, while loading*"), lambda e: e.peak


def _overhead(kind: str) -> _Read:
    return lambda estimate: estimate.overhead.get(kind, 0)


def _fit_paragraph(plan: DevicePlan) -> Paragraph:
    fit: Words = (plan.fit, _ROLES[plan.fit])
    device, who = plan.device, " and ".join(plan.labels)
    if device.unusable:
        return paragraph(fit, f": {who} on {device.name}: {device.unusable}")
    need = f" need {size(plan.total)}, {size(plan.peak)} while loading;"
    who += ":" if plan.total is None else need
    if device.free is None:
        return paragraph(fit, f": {who} the free memory of {device.name} is not known")
    free = f"{size(device.free)} of {size(device.total)} are free on {device.name}"
    return paragraph(
        fit, f": {who} {free}" + (f", {SHARED_GPUS_NOTE}" if plan.shares_several_gpus else "")
    )
