"""Formats the results as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

from llama7b.results import measured

GB = 1e9


def table(result: dict[str, Any]) -> str:
    """Return a row for each variant and mode (medians), then what did not run, then the pair.

    Ratio, MBU and the size of the weights are those at the shortest measured context.
    """
    lines = [
        f"{result['shape']} on {result['device']}",
        "",
        *_runs(result),
        "",
        "| variant | kernel | decode mode | tok/s by context | tok/s ÷ generate | MBU"
        " | TTFT by context, ms | weights, GB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    notes = []
    first = min((int(c) for *_, c, one in _figures(result) if measured(one)), default=0)
    for label, one in result["variants"].items():
        if "not_run" in one:
            notes.append(f"- {label}: {_cell(one['not_run'])}")
        for mode, figures in one.get("modes", {}).items():
            if "not_run" in figures:
                notes.append(f"- {label}, {figures['kernel']}, {mode}: {_cell(figures['not_run'])}")
                continue
            contexts = {c: one for c, one in figures["contexts"].items() if measured(one)}
            notes += [
                f"- {label}, {figures['kernel']}, {mode} at {c}: {_cell(one['not_run'])}"
                for c, one in figures["contexts"].items()
                if not measured(one)
            ]
            if contexts:
                short = contexts.get(str(first)) or next(iter(contexts.values()))
                lines.append(_row(label, figures, contexts, short, result["runs"]))
    if notes:
        lines += ["", "Not run:", "", *notes]
    lines += ["", *_pair(result.get("pair", {}))]
    return "\n".join(lines)


def _row(
    label: str,
    figures: dict[str, Any],
    contexts: dict[str, Any],
    short: dict[str, Any],
    runs: list[dict[str, Any]],
) -> str:
    rate = statistics.median(short["tok_s"])
    mbu = short["bytes_per_token"] * rate / runs[short["run"]]["bandwidth_bytes_s"]
    return (
        f"| {label} | {figures['kernel']} | {figures['decode']} "
        f"| {_by_context(contexts, 'tok_s', 1)} "
        f"| {statistics.median(short['ratio']):.2f} | {mbu:.0%} "
        f"| {_by_context(contexts, 'ttft_ms', 0)} "
        f"| {short['ledger']['weights'] / GB:.2f} |"
    )


def _runs(result: dict[str, Any]) -> list[str]:
    """Return a line for each run whose figures are shown."""
    shown = {one["run"] for *_, one in _figures(result)}
    if "run" in result.get("pair", {}):
        shown.add(result["pair"]["run"])
    lines = []
    for run in (result["runs"][number] for number in sorted(shown)):
        reads = f"memory read at {run['bandwidth_bytes_s'] / GB:.0f} GB/s"
        if run["peak_bytes_s"]:
            reads += f" of {run['peak_bytes_s'] / GB:.0f}"
        lines.append(f"- {run['date'][:10]}, `{run['command']}`, {reads}")
    return lines


def _figures(result: dict[str, Any]) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """Yield label, mode, context and figures of each measurement."""
    for label, one in result["variants"].items():
        for mode, figures in one.get("modes", {}).items():
            for context, by_context in figures.get("contexts", {}).items():
                yield label, mode, context, by_context


def _pair(pair: dict[str, Any]) -> list[str]:
    if "in turn" not in pair:
        reason = f"not run: {pair['not_run']}" if "not_run" in pair else "not measured"
        return [f"Together and one at a time: {reason}"]
    lines = [
        f"| context of {pair['context']} | decode mode | tok/s one at a time | tok/s together |",
        "| --- | --- | --- | --- |",
    ]
    for label, rates in pair["in turn"].items():
        alone, shared = statistics.median(rates), statistics.median(pair["together"][label])
        lines.append(f"| {label} | {pair['decode'][label]} | {alone:.1f} | {shared:.1f} |")
    return lines


def _by_context(contexts: dict[str, Any], figure: str, digits: int) -> str:
    parts = [f"{c}: {statistics.median(one[figure]):.{digits}f}" for c, one in contexts.items()]
    return ", ".join(parts)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())
