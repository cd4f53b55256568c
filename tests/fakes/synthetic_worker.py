"""A worker process without a model: the real pipes, inbox and outbox, and tokens at a given rate.

The prompt chooses the answer: `prose 300 2000` is 2000 tokens of prose at 300 per second, and
`prose 300 2000 1500` the same with the first 1500 tokens at once. The decoding thread only waits
for the next token's time, puts the token into the outbox and notes when. So the times that arrive
show any delay. See `start_synthetic`.
"""

from __future__ import annotations

import os
import platform
import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quantchat.host.worker_process import StartWorker


def start_synthetic(folder: Path) -> StartWorker:
    """A `StartWorker` that starts such processes; `folder` is for the interpreter that they name.

    To the program it is a variant's own interpreter, as any other that a profile may name.
    """
    import quantchat
    from quantchat.host.worker_process import Place, Worker, start_worker

    roots = [Path(quantchat.__file__).parents[1], Path(__file__).parents[1]]
    called = shlex.join([sys.executable, __file__, *map(str, roots)])
    interpreter = folder / "synthetic-python"
    interpreter.write_text(f'#!/bin/sh\nshift\nexec {called} "$@"\n')
    interpreter.chmod(0o700)

    async def start(place: Place) -> Worker:
        return await start_worker(Place(place.label, str(interpreter)))

    return start


def main(commands: int, events: int, life: int, parent: int) -> None:
    """Serve commands until the parent ends."""
    from fakes.scripted_worker import ledger, model_info
    from fakes.synthetic_text import wanted
    from quantchat.wire.messages import (
        VERSION,
        Generate,
        Hello,
        LoadModel,
        Memory,
        Prefilled,
        Ready,
        Started,
    )
    from quantchat.worker import parent_watchdog
    from quantchat.worker.failures import describe
    from quantchat.worker.inbox import Inbox
    from quantchat.worker.outbox import ALIVE_S, Outbox

    for fd in (commands, events):
        os.set_inheritable(fd, False)
    parent_watchdog.watch(life)
    parent_watchdog.die_with(parent)
    outbox = Outbox(events, ALIVE_S)
    inbox = Inbox(commands, lambda error: outbox.send(describe(error)))
    outbox.send(Hello(VERSION, os.getpid(), platform.python_version()))
    while True:
        command = inbox.next()
        if isinstance(command, LoadModel):
            what = replace(model_info("no kernel"), context_length=2**20)
            outbox.send(Ready(what, ledger(), 0.1, 0.1, 0.1))
        elif isinstance(command, Generate):
            received = time.perf_counter_ns()
            kind, rate, count, at_once = wanted(command.messages[-1].content)
            tokenizer = _tokenizer(kind, count)
            outbox.serve(tokenizer, lambda: Memory(ledger()))
            outbox.send(Started(command.turn, received, 10, 0))
            outbox.send(Prefilled(command.turn, 10, 10, time.perf_counter_ns()))
            outbox.begin(command.turn)
            reason = _decode(command.turn, rate, count, at_once, inbox, outbox)
            outbox.end(command.turn, reason, time.perf_counter_ns())


def _decode(turn: int, rate: float, count: int, at_once: int, inbox: Any, outbox: Any) -> str:
    """Put `count` tokens at `rate` a second, but for the first; returns why it ended."""
    due = time.perf_counter()
    for number in range(count):
        due += 0 if number < at_once else 1 / rate
        left = due - time.perf_counter()
        if left > 0:
            time.sleep(left)
        if inbox.stopped(turn):
            return "stop"
        outbox.token(number, time.perf_counter_ns())
    return "eos"


def _tokenizer(kind: str, count: int) -> Any:
    """Return a tokenizer whose token n is token n of the text."""
    from tokenizers import Tokenizer, decoders, models

    from fakes.synthetic_text import tokens

    # Equal tokens at different places need different names: a mark that no text has, taken off
    # again in decoding.
    vocabulary = {f"{n}\x00{token}": n for n, token in enumerate(tokens(kind, count))}
    tokenizer = Tokenizer(models.WordLevel(vocab=vocabulary, unk_token=next(iter(vocabulary))))
    tokenizer.decoder = decoders.Sequence([_strip_mark(), decoders.Fuse()])
    return tokenizer


def _strip_mark() -> Any:
    from tokenizers import Regex, decoders

    return decoders.Replace(Regex("^[0-9]+\x00"), "")


if __name__ == "__main__":
    # The script's own folder comes first on the path; its modules are not top-level ones.
    sys.path[0:1] = sys.argv[1:3]
    main(*(int(argument) for argument in sys.argv[3:]))
