"""The end of a Markdown stream, whatever became of it."""

from __future__ import annotations

import asyncio

import pytest
from textual.widgets.markdown import MarkdownStream

from quantchat.app.textual_workarounds import stop_stream


class Broken(MarkdownStream):
    """A stream whose task has died, or that never ends."""

    def __init__(self, error: BaseException | None) -> None:
        self._error = error

    async def stop(self) -> None:
        if self._error is not None:
            raise self._error
        await asyncio.Event().wait()


@pytest.mark.parametrize("error", [ValueError("an append failed"), asyncio.CancelledError()])
async def test_a_stream_that_died_can_be_stopped(error: BaseException) -> None:
    await stop_stream(Broken(error))


async def test_to_be_cancelled_meanwhile_is_not_swallowed() -> None:
    # A timer that survived its own cancelling would let the end of the screen wait for ever.
    stopping = asyncio.ensure_future(stop_stream(Broken(None)))
    await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(stopping, 10)
