"""A measurement by scripted workers, as a snapshot from which a report can be built."""

from __future__ import annotations

import asyncio
from pathlib import Path

from hypothesis import strategies as st

from fakes.saved_snapshots import SAMPLE, hostile_snapshots, hostile_text
from fakes.scripted_worker import Script, ScriptedProvider, model_info, starter
from quantchat.measuring.measure import measure
from quantchat.measuring.rounds import Plan, Task
from quantchat.profile.model import Profile
from quantchat.session.comparison import Comparison
from quantchat.session.conversation import Order
from quantchat.snapshot.schema import (
    AnswerRecord,
    MeasurementRecord,
    Snapshot,
    TaskRecord,
    TurnRecord,
)

PROMPTS = ("What is the capital of France?", "And of Italy?", "And of Spain?")


def measured(
    folder: Path, *, rounds: int = 2, order: Order = "in-turn", labels: tuple[str, str] = ("A", "B")
) -> Snapshot:
    """Measure two scripted variants: B is twice as fast, and diverges at the fifth token."""
    first, second = labels
    scripts = {
        first: Script(answer=lambda request: "The capital of France is Paris.", token_ms=20.0),
        second: Script(
            answer=lambda request: "The capital of France was Rome.",
            token_ms=10.0,
            model_info=model_info("other"),
            process=256 * 2**20,
        ),
    }
    variants = [{"label": label, "engine": "bitsandbytes", "model": "m"} for label in labels]
    profile = Profile.model_validate({"name": "Scripted", "variants": variants})
    comparison = Comparison(
        profile, provider=ScriptedProvider(scripts), start=starter(scripts, folder)
    )
    plan = Plan(tuple(map(Task, PROMPTS)), rounds=rounds, warmup=1, order=order)
    return asyncio.run(measure(comparison, plan))


def with_prompt_lengths(snapshot: Snapshot, *lengths: int) -> Snapshot:
    """`snapshot` as if the prompt of each task had been so long."""

    def answer(record: AnswerRecord, length: int) -> AnswerRecord:
        return record.model_copy(update={"prompt_tokens": length})

    def turn(record: TurnRecord) -> TurnRecord:
        length = lengths[((record.task or 1) - 1) % len(lengths)]
        return record.model_copy(update={"answers": [answer(a, length) for a in record.answers]})

    return snapshot.model_copy(update={"turns": [turn(record) for record in snapshot.turns]})


@st.composite
def hostile_measurements(draw: st.DrawFn) -> Snapshot:
    """Hostile snapshots whose turns were measured, or say so."""
    snapshot = draw(hostile_snapshots)
    number = st.none() | st.integers(1, 3)
    turns = [
        turn.model_copy(update={"task": draw(number), "round": draw(number)})
        for turn in snapshot.turns
    ]
    answered = [answer.variant for turn in turns for answer in turn.answers]
    measurement = MeasurementRecord(
        tasks=[TaskRecord(prompt=draw(hostile_text), prompt_tokens=0, output_tokens=0)],
        rounds=draw(st.integers(1, 9)),
        warmup=1,
        order=draw(st.sampled_from(["together", "in-turn"])),
        ignore_eos=draw(st.booleans()),
        stopped=draw(st.booleans()),
        samples=[SAMPLE] * draw(st.integers(0, 3)),
        flags=draw(st.lists(hostile_text, max_size=2)),
    )
    shown = draw(st.just(answered[:2]) | st.lists(hostile_text, max_size=2))
    changes = {"turns": turns, "measurement": measurement, "shown": shown}
    return snapshot.model_copy(update=changes)
