"""Load tests as snapshots have them, with round times."""

from __future__ import annotations

from quantchat.snapshot.load_test import LoadTestedRecord, LoadTestRecord
from quantchat.wire.jobs import BatchRound, LoadTestLevel, LoadTestRound, RequestTimes

MS = 1_000_000


def times(seconds: float, error: str = "") -> RequestTimes:
    """A request answered by two tokens."""
    ended = int(1000 * seconds) * MS
    return RequestTimes(0, 0, [100 * MS, ended], ended, 8, 2, error)


def load_tested(label: str, *, batches: bool, seconds: float) -> LoadTestedRecord:
    """A variant with two rounds at the only level, and a failed request if it is a server."""
    one = LoadTestedRecord(label=label, model_info=None, note="", tokens_counted=None)
    if batches:
        done = [BatchRound(4, [8] * 4, 100 * MS, [50 * MS], 1, 1)] * 2
        return one.model_copy(update={"batches": done})
    rounds = [LoadTestRound(0, [times(seconds), times(seconds, "no answer")])] * 2
    return one.model_copy(update={"rounds": rounds})


def load_test_record(
    level: LoadTestLevel, *, batches: bool = False, seconds: float = 0.15
) -> LoadTestRecord:
    """Two variants with two rounds, in which answers take `seconds`."""
    return LoadTestRecord(
        levels=[level],
        requests=2,
        prompt_tokens=8,
        output_tokens=2,
        mixed=False,
        rounds=2,
        seed=1,
        slo="",
        models=[load_tested(label, batches=batches, seconds=seconds) for label in ("one", "other")],
        undone=[],
    )
