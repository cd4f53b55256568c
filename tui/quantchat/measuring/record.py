"""Turn a measurement, with its comparison, into a snapshot."""

from __future__ import annotations

import dataclasses

from quantchat.measuring.measurement import Measurement
from quantchat.session.comparison import Comparison
from quantchat.session.recorder import RecordedTurn, record
from quantchat.snapshot.schema import DisturbedRecord, MeasurementRecord, Snapshot, TaskRecord
from quantchat.system.sampler import DeviceSampler


def record_measurement(
    comparison: Comparison, sampler: DeviceSampler | None, measurement: Measurement
) -> Snapshot:
    """Return a snapshot of `comparison` with what was measured so far."""
    return record(
        comparison,
        sampler,
        more=[RecordedTurn(one.turn, one.task + 1, one.round) for one in measurement.measured],
        measurement=_measurement(measurement),
    )


def _measurement(measurement: Measurement) -> MeasurementRecord:
    plan = measurement.plan
    rounds = plan.rounds
    # A plan with a limit may end before its last round. Then record the rounds that were measured.
    if (plan.until_width is not None or plan.minutes is not None) and not measurement.stopped:
        rounds = max((one.round for one in measurement.measured), default=0)
    return MeasurementRecord(
        tasks=[TaskRecord(**dataclasses.asdict(task)) for task in plan.tasks],
        rounds=rounds,
        warmup=plan.warmup,
        order=plan.order,
        ignore_eos=plan.ignore_eos,
        until_width=plan.until_width,
        stopped=measurement.stopped,
        samples=measurement.samples,
        flags=measurement.flags,
        disturbed=[
            DisturbedRecord(
                task=one.task + 1, round=one.round, reason=one.reason, left_out=one.left_out
            )
            for one in measurement.disturbed
        ],
    )
