"""The result of `seven` as Markdown."""

from __future__ import annotations

import statistics
from typing import Any

GB = 1e9


def table(result: dict[str, Any]) -> str:
    """A row for each variant and mode: medians, and the weights' size."""
    first = next(iter(_contexts(result)), "")
    lines = [
        f"{result['shape']} on {result['device']}, {result['date'][:10]}, `{result['command']}`",
        "",
        "| variant | kernel | decode | tok/s by context | × generate | MBU | TTFT ms | GB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for label, one in result["variants"].items():
        if "not_run" in one:
            lines.append(f"| {label} | not run: {_cell(one['not_run'])} | | | | | | |")
            continue
        for mode, figures in one["modes"].items():
            if "not_run" in figures:
                lines.append(
                    f"| {label} | {one['kernel']} | {mode} | not run: "
                    f"{_cell(figures['not_run'])} | | | | |"
                )
                continue
            contexts = figures["contexts"]
            short = contexts.get(first) or next(iter(contexts.values()))
            rate = statistics.median(short["tok_s"])
            mbu = short["bytes_per_token"] * rate / result["bandwidth_bytes_s"]
            lines.append(
                f"| {label} | {one['kernel']} | {figures['decode']} "
                f"| {_by_context(contexts, 'tok_s', 1)} "
                f"| {statistics.median(short['ratio']):.2f} | {mbu:.0%} "
                f"| {_by_context(contexts, 'ttft_ms', 0)} "
                f"| {short['ledger']['weights'] / GB:.2f} |"
            )
    lines += ["", *_pair(result.get("pair", {}))]
    return "\n".join(lines)


def _pair(pair: dict[str, Any]) -> list[str]:
    if "in turn" not in pair:
        return [f"Together and in turn: not run: {pair.get('not_run', 'not asked for')}"]
    lines = ["| tok/s | in turn | together |", "| --- | --- | --- |"]
    for label, rates in pair["in turn"].items():
        alone, shared = statistics.median(rates), statistics.median(pair["together"][label])
        lines.append(f"| {label} | {alone:.1f} | {shared:.1f} |")
    return lines


def _contexts(result: dict[str, Any]) -> list[str]:
    return [
        context
        for one in result["variants"].values()
        for figures in one.get("modes", {}).values()
        for context in figures.get("contexts", {})
    ]


def _by_context(contexts: dict[str, Any], figure: str, digits: int) -> str:
    parts = [f"{c}: {statistics.median(one[figure]):.{digits}f}" for c, one in contexts.items()]
    return ", ".join(parts)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())
