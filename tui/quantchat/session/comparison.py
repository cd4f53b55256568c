"""The comparison: a profile's variants, the pair that is shown, and the conversation with it.

The screen and the commands without a screen use the same object. Everything here runs on one
asyncio loop. Tokens and figures are state that a reader polls (a screen draws a few times per
second); only rare changes are reported with `on_change`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

from quantchat.checkpoints.maker import Maker
from quantchat.host.watchdog import watchdog
from quantchat.host.worker_process import StartWorker, start_worker
from quantchat.profile.model import Generation, Profile
from quantchat.session.conversation import Answer, Conversation, Order, Turn
from quantchat.session.live_variant import LiveVariant, State
from quantchat.session.requests import chat_request, threads_for
from quantchat.session.teacher_forcing import (
    cross_perplexities,
    greedy_divergence,
    score_divergence,
)
from quantchat.wire.messages import Failed


@dataclass(frozen=True)
class VariantChanged:
    """The state, stage or failure of `variant` changed."""

    variant: LiveVariant


@dataclass(frozen=True)
class TurnStarted:
    """A prompt was sent; its answers start to grow."""

    turn: Turn


@dataclass(frozen=True)
class TurnEnded:
    """Each answer of the turn is over."""

    turn: Turn


@dataclass(frozen=True)
class DivergenceScored:
    """The probabilities at the turn's divergence are known: `turn.divergence` is set."""

    turn: Turn


@dataclass(frozen=True)
class ConversationChanged:
    """Turns were removed (new chat, edit, regenerate): redraw the conversation."""


Change = VariantChanged | TurnStarted | TurnEnded | DivergenceScored | ConversationChanged


class Comparison:
    """The variants of `profile`, of which the `pair` is loaded and answers.

    `start` starts a worker; tests pass one that starts no process.
    """

    def __init__(
        self,
        profile: Profile,
        *,
        maker: Maker,
        start: StartWorker = start_worker,
        on_change: Callable[[Change], None] = lambda change: None,
    ) -> None:
        self.profile = profile
        self.generation: Generation = profile.generation
        self.order: Order = profile.run.order
        self.turn_numbers: Iterator[int] = itertools.count(1)
        """Numbers for all turns of these variants: of chats, measurements, votes and checks."""
        self.conversation = self._new_conversation()
        self.on_change = on_change
        self.before_loss: Callable[[], None] = lambda: None
        """Called before turns are removed or a variant is ended, to save the conversation. If it
        raises, nothing is removed."""
        self.variants = [
            LiveVariant(
                spec,
                maker=maker,
                start=start,
                on_change=self._variant_changed,
                settings=lambda: self.generation,
            )
            for spec in profile.variants
        ]
        self.pair: tuple[int, int] = (0, 1)
        self._asking: asyncio.Task[None] | None = None
        self._scoring: asyncio.Task[None] | None = None
        self._stopping = False
        self._occupied = False

    # ------------------------------------------------------------ which variants

    @property
    def sides(self) -> tuple[LiveVariant, LiveVariant]:
        """The two shown variants, left and right."""
        left, right = self.pair
        return self.variants[left], self.variants[right]

    def open(self) -> None:
        """Start loading the pair. Returns at once; the variants report their progress."""
        for variant in self.sides:
            variant.begin()

    def choose_pair(self, left: int, right: int) -> None:
        """Show two other variants; end those no longer shown, to free their memory.

        Raises ValueError if both are the same, or while answers are streaming.
        """
        if left == right:
            raise ValueError("choose two different variants")
        self._unless_busy()
        self.before_loss()
        self.pair = (left, right)
        for index, variant in enumerate(self.variants):
            if index not in self.pair:
                variant.end()
        self.open()

    def swap(self) -> None:
        """Swap left and right."""
        left, right = self.pair
        self.pair = (right, left)

    async def close(self) -> None:
        """Stop everything and wait until no worker process is left."""
        for task in filter(None, (self._asking, self._scoring)):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await asyncio.gather(*(variant.close() for variant in self.variants))

    def _new_conversation(self) -> Conversation:
        return Conversation(system=self.generation.system, numbers=self.turn_numbers)

    def _variant_changed(self, variant: LiveVariant) -> None:
        self.on_change(VariantChanged(variant))

    # ------------------------------------------------------------ the conversation

    @property
    def busy(self) -> bool:
        """Whether a turn or other work occupies the pair."""
        return self._occupied or (self._asking is not None and not self._asking.done())

    @property
    def last_turn(self) -> Turn | None:
        """The newest turn, streaming or complete; None if there is none."""
        return self.conversation.turns[-1] if self.conversation.turns else None

    def ask(self, prompt: str) -> Turn:
        """Send `prompt` to each shown variant that is ready; return the turn, which then grows.

        Raises ValueError while a turn is running, or if no shown variant is ready.
        """
        self._unless_busy()
        ready = self._ready()
        making = [v for v in self.sides if v.state in (State.PREPARING, State.LOADING)]
        # While the other variant is being made or loaded, this one shares the machine with it.
        alone: Order = "together" if making else "in-turn"
        order = self.order if len(ready) > 1 else alone
        turn = self.conversation.begin(prompt, [Answer(v.label, order) for v in ready])
        self._stopping = False
        self.on_change(TurnStarted(turn))
        at_work = len(ready) + len(making) if order == "together" else 1
        self._asking = asyncio.ensure_future(self._run(turn, ready, order, threads_for(at_work)))
        return turn

    def unless_pair_idle(self) -> None:
        """Raise ValueError unless both shown variants are ready and idle."""
        self._unless_busy()
        waiting = [one.label for one in self.sides if one.state is not State.READY]
        if waiting:
            raise ValueError(f"not ready yet: {', '.join(waiting)}")

    @contextlib.contextmanager
    def occupied(self) -> Iterator[None]:
        """Reserve the shown pair for other work within this context; turns are refused meanwhile.

        Raises ValueError as `unless_pair_idle` does.
        """
        self.unless_pair_idle()
        self._occupied = True
        try:
            yield
        finally:
            self._occupied = False

    async def wait(self) -> None:
        """Wait until the running turn, if any, is over."""
        if self._asking is not None:
            await asyncio.shield(self._asking)

    def stop(self) -> None:
        """Stop decoding on both sides; the text so far stays."""
        self._stopping = True
        for variant in self.variants:
            variant.stop()

    def again(self, prompt: str | None = None) -> Turn:
        """Replace the last turn: send its prompt again (regenerate), or `prompt` (edit).

        Raises ValueError as `ask` does, or if there is no turn; then nothing is removed.
        """
        last = self.last_turn
        if last is None:
            raise ValueError("there is no answer to regenerate yet")
        self._unless_busy()
        self._ready()
        self.before_loss()
        self.conversation.drop_last()
        self.on_change(ConversationChanged())
        return self.ask(last.prompt if prompt is None else prompt)

    def new_chat(self) -> None:
        """Start a new conversation. Raises ValueError while a turn is running."""
        self._unless_busy()
        self.before_loss()
        self.conversation = self._new_conversation()
        self.on_change(ConversationChanged())

    def forget_oldest(self) -> None:
        """Remove the oldest turn, for a full context. Raises ValueError while a turn is running."""
        self._unless_busy()
        self.before_loss()
        self.conversation.drop_oldest()
        self.on_change(ConversationChanged())

    def set_generation(self, generation: Generation) -> None:
        """Use other sampling settings and system prompt from the next prompt on."""
        self.generation = generation
        self.conversation.system = generation.system

    def _ready(self) -> list[LiveVariant]:
        ready = [variant for variant in self.sides if variant.state is State.READY]
        if not ready:
            raise ValueError("no variant is ready yet")
        return ready

    def _unless_busy(self) -> None:
        if self.busy:
            raise ValueError("an answer is streaming; stop it first")

    async def _run(self, turn: Turn, ready: list[LiveVariant], order: Order, threads: int) -> None:
        try:
            await self.quiet()
            if order == "together":
                await asyncio.gather(*(self._answer(turn, v, threads) for v in ready))
            else:
                # Every second turn starts with the other side (ABBA over two turns), so that not
                # always the same side runs on a cool, or a throttled, device.
                for variant in ready if turn.number % 2 else reversed(ready):
                    await self._answer(turn, variant, threads)
        finally:
            self.on_change(TurnEnded(turn))
        if greedy_divergence(turn) is not None:
            self._scoring = asyncio.ensure_future(self._score_divergence(turn, ready))

    async def _score_divergence(self, turn: Turn, variants: list[LiveVariant]) -> None:
        turn.divergence = await score_divergence(turn, variants)
        self.on_change(DivergenceScored(turn))

    async def compute_cross_perplexity(self, turn: Turn) -> None:
        """Let each shown variant score both answers of `turn` into `Answer.cross_perplexities`.

        Raises ValueError while a turn is running, or if a variant is not ready.
        """
        self.unless_pair_idle()
        if self._scoring is not None:
            await asyncio.wait([self._scoring])
        variants = [v for label in turn.answers for v in self.sides if v.label == label]
        self._scoring = asyncio.ensure_future(cross_perplexities(turn, variants))
        await asyncio.wait([self._scoring])

    @contextlib.asynccontextmanager
    async def silent_sides_ended(self) -> AsyncIterator[None]:
        """End shown variants that do not respond (`LiveVariant.overdue`) within this context.

        For work that nobody may be watching. An ended variant is FAILED and says why.
        """

        def look(now_s: float) -> None:
            for variant in self.sides:
                failure = variant.overdue(now_s)
                if failure is not None:
                    variant.give_up(failure)

        def excuse(now_s: float) -> None:
            for variant in self.sides:
                variant.excuse(now_s)

        async with watchdog(look, excuse):
            yield

    def end_at_work(self) -> None:
        """End the shown variants that are still working although they were asked to stop."""
        for variant in self.sides:
            if variant.at_work:
                reason = "the worker did not stop when it was asked to, so it was ended"
                variant.give_up(Failed("not_responding", reason, "reload the variant"))

    async def quiet(self) -> None:
        """Cancel teacher forcing and wait for its end, because it would disturb a timing."""
        while self._scoring is not None and not self._scoring.done():
            for variant in self.variants:
                variant.preempt()
            # Repeat: a task that has not sent its request yet was not cancelled.
            await asyncio.wait([self._scoring], timeout=0.05)

    async def _answer(self, turn: Turn, variant: LiveVariant, threads: int) -> None:
        answer = turn.answers[variant.label]
        if self._stopping:
            answer.never_asked()
            return
        messages = self.conversation.messages_for(variant.label, turn)
        request = chat_request(turn.number, messages, self.generation, threads=threads)
        await variant.answer(request, answer)
