"""A real worker that loads a model and gives one greedy answer."""

from __future__ import annotations

from quantchat.host.worker_process import Place, start_worker
from quantchat.wire.messages import (
    Failed,
    Finished,
    Generate,
    LoadModel,
    Message,
    Ready,
    Sampling,
)


async def greedy_answer(load: LoadModel, tokens: int) -> tuple[Ready, Finished]:
    """Load the model; return what runs, and an answer of exactly `tokens` tokens."""
    worker = await start_worker(Place("test"))
    ready: Ready | None = None
    try:
        worker.send(load)
        async for event in worker.events():
            assert not isinstance(event, Failed), event
            if isinstance(event, Ready):
                ready = event
                said = [Message("user", "Where is Paris?")]
                worker.send(Generate(1, said, Sampling(), tokens, threads=1, ignore_eos=True))
            if isinstance(event, Finished):
                assert ready is not None
                return ready, event
        raise AssertionError("unreachable: the events end with an exception")
    finally:
        await worker.close()
