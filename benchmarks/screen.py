"""Measure the cost of the screen while two sides stream, and whether anything is lost or delayed.

`python benchmarks/screen.py` streams texts from imitated models into the real screen, in a
pseudo-terminal of 120 x 40 cells whose reader only counts bytes. It measures:

- each kind of text at 300, 1000 and 3000 tok/s per side: processor time, bytes sent, memory, the
  time from a key to its echo, and whether all tokens arrived;
- the same for prose at 300 tok/s: over SSH, with `--low-bandwidth`, and after conversations of
  1,000, 10,000 and 100,000 tokens;
- prose at 300 tok/s in a terminal that reads 4 kB/s, in one that reads nothing for 30 s, and in one
  that is resized 500 times: whether all tokens arrived, and whether decoding was delayed;
- prose and code at 300 tok/s in two plain `Markdown` widgets of Textual, which most clients use.

It writes `benchmarks/results/screen.json`; the exit status is 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Any

from driving import circumstances
from session import (
    HERE,
    SIZE,
    TESTS,
    Session,
    Synthetic,
    keep,
    kept,
    key_latencies_ms,
    percentile,
)

sys.path.insert(0, str(TESTS))

from fakes.synthetic_text import KINDS

RATES = (300, 1000, 3000)
TRANSCRIPTS = (1_000, 10_000, 100_000)
SETTLING_S = 1.5
QUIET_S = 4.0
"""Seconds without typing, in which processor time and bytes are measured."""
TYPING_S = 12.0
OVER_SSH = {"SSH_CONNECTION": "192.0.2.1 1 192.0.2.2 22"}
SLOW = 4000
"""Bytes per second of a slow terminal."""
DEAF_S = 30.0
"""How long, in s, a terminal is slow, reads nothing or is resized."""


def measured(session: Session, rate: int) -> dict[str, Any]:
    """Return the cost of `session`, which is streaming `rate` tok/s on each side."""
    received, cpu_s, began = session.received, session.cpu_s(), time.perf_counter()
    time.sleep(QUIET_S)
    wall_s = time.perf_counter() - began
    cpu = session.cpu_s() - cpu_s
    written = session.received - received
    return {
        "tok_s_each_side": rate,
        "cpu_share_of_a_core": round(cpu / wall_s, 3),
        "cpu_us_per_token": round(1e6 * cpu / (2 * rate * wall_s)),
        "bytes_per_token": round(written / (2 * rate * wall_s), 1),
        "screen_process_mb": session.resident_mb(),
    }


def outcome(answers: list[dict[str, Any]]) -> dict[str, Any]:
    """Return whether all answers arrived completely, and the decoding rates and longest gap."""
    return {
        "whole_and_in_order": bool(answers) and all(a["whole"] and a["in_order"] for a in answers),
        "tokens": sum(a["tokens"] for a in answers),
        "decoded_tok_s": [a["rate"] for a in answers],
        "longest_gap_ms": max((a["longest_gap_ms"] for a in answers), default=None),
    }


def streamed(
    kind: str,
    rate: int,
    *more: str,
    env: dict[str, str] | None = None,
    history: int = 0,
) -> dict[str, Any]:
    """Stream text of `kind` at `rate` tok/s per side; return cost, key latencies and what arrived.

    `more` are options of the program, `history` is the number of tokens before the stream.
    """
    session = Synthetic(*more, *(("--history", str(history)) if history else ()), env=env)
    try:
        session.ask(kind, rate, int(rate * (SETTLING_S + QUIET_S + TYPING_S + 2)))
        time.sleep(SETTLING_S + history / 50_000)
        found = measured(session, rate)
        keys = key_latencies_ms(session, TYPING_S)
        session.forget()
        session.resize(SIZE[0] + 1, SIZE[1])  # redraws "ready" if an answer is over already
        session.wait_for("● ready", times=2, most_s=60)
        answers = session.report()
    finally:
        session.close()
    latencies = {f"p{p}": round(percentile(keys, p), 1) for p in (50, 95)}
    return {"kind": kind, **found, "key_to_echo_ms": latencies, "keys": len(keys)} | outcome(
        answers
    )


def hindered(how: str) -> dict[str, Any]:
    """Stream prose at 300 tok/s to a terminal that is slow, reads nothing or is resized (`how`).

    Return when a key was echoed after that, and what arrived.
    """
    session = Synthetic()
    try:
        session.ask("prose", 300, int(300 * (DEAF_S + 5)))
        time.sleep(SETTLING_S)
        if how == "500 sizes":
            for number in range(500):
                session.resize(30 + number * 7 % 170, 8 + number % 50)
                time.sleep(DEAF_S / 500)
        else:
            session.pace = 0 if how == "reads nothing" else SLOW
            time.sleep(DEAF_S)
        session.pace = None
        session.resize(*SIZE)
        session.forget()
        began = time.perf_counter()
        session.type("Ж")
        caught_up_s = session.wait_for("Ж", most_s=60) - began
        time.sleep(8)
        answers = session.report()
    finally:
        session.close()
    return {"terminal": how, "key_to_echo_after_s": round(caught_up_s, 2)} | outcome(answers)


def bare(kind: str, rate: int) -> dict[str, Any]:
    """Measure streams in two plain Markdown widgets of Textual, at their start and 14 s later."""
    session = Session([sys.executable, str(HERE / "bare_markdown.py"), kind, str(rate)])
    try:
        session.wait_for("streams")
        time.sleep(SETTLING_S)
        early = measured(session, rate)
        time.sleep(10)
        late = measured(session, rate)
    finally:
        session.close()
    return {"kind": kind, "at_once": early, "after_14_s": late}


def table(result: dict[str, Any]) -> list[str]:
    """Return the saved result as Markdown, for docs/explanation/screen-benchmarks.md.

    If the machine had more load than cores, leave out the figures that depend on its load.
    """
    busy = result["load_before"] > result["cores"]
    named = [(one["kind"], one) for one in result["streams"]]
    named += [
        ("prose, over SSH", result["over_ssh"]),
        ("prose, --low-bandwidth", result["few_bytes"]),
    ]
    for one in result["transcripts"]:
        named.append((f"prose after {one['transcript_tokens']:,} tokens", one))
    costs = "CPU µs per token | CPU, % of a core | bytes per token | key to echo, p50 / p95, ms |"
    lines = ["| text | tok/s per side | lost tokens | memory, MB |" + ("" if busy else f" {costs}")]
    lines.append("|" + " --- |" * (lines[0].count("|") - 1))
    for name, one in named:
        lost = "nothing" if one["whole_and_in_order"] else "SOME"
        line = f"| {name} | {one['tok_s_each_side']} | {lost} | {one['screen_process_mb']:.0f} |"
        if not busy:
            keys = one["key_to_echo_ms"]
            line += (
                f" {one['cpu_us_per_token']} | {one['cpu_share_of_a_core']:.0%} "
                f"| {one['bytes_per_token']:.0f} | {keys['p50']:.0f} / {keys['p95']:.0f} |"
            )
        lines.append(line)
    lines += [
        "",
        "| terminal, 30 s at 300 tok/s per side | decoded tok/s | longest gap, ms | lost tokens |",
        "| --- | --- | --- | --- |",
    ]
    for one in result["hindered"]:
        lost = "nothing" if one["whole_and_in_order"] else "SOME"
        rates = " and ".join(f"{rate:.0f}" for rate in one["decoded_tok_s"])
        lines.append(f"| {one['terminal']} | {rates} | {one['longest_gap_ms']:.0f} | {lost} |")
    return lines


def main() -> int:
    """Measure and write the result; 0 if nothing was lost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--rates", nargs="+", type=int, default=list(RATES))
    parser.add_argument("--table", action="store_true", help="print the saved result")
    asked = parser.parse_args()
    if asked.table:
        print("\n".join(table(kept("screen"))))
        return 0
    result = circumstances(" ".join(["screen.py", *sys.argv[1:]]))
    result["cores"] = os.cpu_count()
    result["streams"] = [streamed(kind, rate) for rate in asked.rates for kind in asked.kinds]
    result["over_ssh"] = streamed("prose", 300, env=OVER_SSH)
    result["few_bytes"] = streamed("prose", 300, "--low-bandwidth")
    result["transcripts"] = [
        {"transcript_tokens": tokens} | streamed("prose", 300, history=tokens)
        for tokens in TRANSCRIPTS
    ]
    result["hindered"] = [hindered(how) for how in ("reads 4 kB/s", "reads nothing", "500 sizes")]
    result["bare_markdown"] = [bare(kind, 300) for kind in ("prose", "code")]
    runs = [*result["streams"], result["over_ssh"], result["few_bytes"], *result["transcripts"]]
    result["nothing_lost"] = all(one["whole_and_in_order"] for one in [*runs, *result["hindered"]])
    keep("screen", result)
    return 0 if result["nothing_lost"] else 1


if __name__ == "__main__":
    sys.exit(main())
