"""The comparison: a profile's variants, the pair on show, and the conversation with it.

The screen and the headless run are two faces of this one object. Everything here runs on one
asyncio loop; tokens and figures are state to be read when the reader has time (a screen draws a
few times a second), and only what changes rarely is told through `on_change`.
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
    """A variant's state, stage or failure is another now: read it from the variant."""

    variant: LiveVariant


@dataclass(frozen=True)
class TurnStarted:
    """A prompt was sent; its answers begin to grow."""

    turn: Turn


@dataclass(frozen=True)
class TurnEnded:
    """Each answer of the turn is over."""

    turn: Turn


@dataclass(frozen=True)
class DivergenceScored:
    """The variants were asked where the answers of the turn part: `turn.divergence` is known."""

    turn: Turn


@dataclass(frozen=True)
class ConversationChanged:
    """Turns were taken away (new chat, edit, regenerate): draw the conversation anew."""


Change = VariantChanged | TurnStarted | TurnEnded | DivergenceScored | ConversationChanged


class Comparison:
    """Variants of `profile`, two of them (`pair`) loaded and talked to.

    `start` is the seam for tests: it starts a worker, by default a real process.
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
        """Called before something that was said is taken away or a variant is ended: to keep it.
        What it raises prevents that."""
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
        """The two variants on show, left and right."""
        left, right = self.pair
        return self.variants[left], self.variants[right]

    def open(self) -> None:
        """Begin to load the pair; returns at once, the variants tell how far they are."""
        for variant in self.sides:
            variant.begin()

    def choose_pair(self, left: int, right: int) -> None:
        """Show two other variants; those no longer shown are ended, to give their memory back.

        Raises ValueError where both are the same, or while answers are streaming.
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
        """Let left and right change places."""
        left, right = self.pair
        self.pair = (right, left)

    async def close(self) -> None:
        """Stop everything; returns when no worker process is left."""
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
        """Whether a turn is under way, or other work that occupies the pair."""
        return self._occupied or (self._asking is not None and not self._asking.done())

    @property
    def last_turn(self) -> Turn | None:
        """The newest turn, streaming or over."""
        return self.conversation.turns[-1] if self.conversation.turns else None

    def ask(self, prompt: str) -> Turn:
        """Send `prompt` to each shown variant that is ready; returns the turn, which then grows.

        Raises ValueError while a turn is under way, or where no shown variant is ready.
        """
        self._unless_busy()
        ready = self._ready()
        making = [v for v in self.sides if v.state in (State.PREPARING, State.LOADING)]
        # Beside a variant that is being made or loaded nothing is alone on the machine.
        alone: Order = "together" if making else "in-turn"
        order = self.order if len(ready) > 1 else alone
        turn = self.conversation.begin(prompt, [Answer(v.label, order) for v in ready])
        self._stopping = False
        self.on_change(TurnStarted(turn))
        at_work = len(ready) + len(making) if order == "together" else 1
        self._asking = asyncio.ensure_future(self._run(turn, ready, order, threads_for(at_work)))
        return turn

    def unless_pair_idle(self) -> None:
        """Raises ValueError unless both shown variants are ready, and nothing is under way."""
        self._unless_busy()
        waiting = [one.label for one in self.sides if one.state is not State.READY]
        if waiting:
            raise ValueError(f"not ready yet: {', '.join(waiting)}")

    @contextlib.contextmanager
    def occupied(self) -> Iterator[None]:
        """Keep the shown pair for other work than turns, which are refused meanwhile.

        Raises ValueError as `unless_pair_idle` does.
        """
        self.unless_pair_idle()
        self._occupied = True
        try:
            yield
        finally:
            self._occupied = False

    async def wait(self) -> None:
        """Wait until the turn under way, if any, is over."""
        if self._asking is not None:
            await asyncio.shield(self._asking)

    def stop(self) -> None:
        """Stop decoding on both sides; what was said is kept."""
        self._stopping = True
        for variant in self.variants:
            variant.stop()

    def again(self, prompt: str | None = None) -> Turn:
        """Ask the last prompt again (regenerate), or `prompt` in its place (edit and resend).

        Raises ValueError as `ask` does, or where nothing was asked; nothing is lost then.
        """
        last = self.last_turn
        if last is None:
            raise ValueError("nothing was asked yet")
        self._unless_busy()
        self._ready()
        self.before_loss()
        self.conversation.drop_last()
        self.on_change(ConversationChanged())
        return self.ask(last.prompt if prompt is None else prompt)

    def new_chat(self) -> None:
        """Forget what was said. Raises ValueError while a turn is under way."""
        self._unless_busy()
        self.before_loss()
        self.conversation = self._new_conversation()
        self.on_change(ConversationChanged())

    def forget_oldest(self) -> None:
        """Drop the oldest turn, for a full context. Raises ValueError while a turn is under way."""
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
                # Every second turn begins with the other side, so that neither is always the one
                # that runs on a cool (or a throttled) device: ABBA over two turns.
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
        """Have each shown variant read both answers of `turn`: see `Answer.cross_perplexities`.

        Raises ValueError while a turn is under way, or where a variant is not ready.
        """
        self.unless_pair_idle()
        if self._scoring is not None:
            await asyncio.wait([self._scoring])
        variants = [v for label in turn.answers for v in self.sides if v.label == label]
        self._scoring = asyncio.ensure_future(cross_perplexities(turn, variants))
        await asyncio.wait([self._scoring])

    @contextlib.asynccontextmanager
    async def silent_sides_ended(self) -> AsyncIterator[None]:
        """End a shown variant that does not respond while it is waited for (`overdue`).

        For work that nobody may be watching. A side that was ended is FAILED and says why.
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
        """End the shown variants that are still waited for: they did not stop when asked."""
        for variant in self.sides:
            if variant.at_work:
                reason = "it did not stop when it was asked to, and was ended"
                variant.give_up(Failed("not_responding", reason, "load it again"))

    async def quiet(self) -> None:
        """Have forcing give way, and wait until no worker is at it: it would disturb a timing."""
        while self._scoring is not None and not self._scoring.done():
            for variant in self.variants:
                variant.preempt()
            # Not for ever: one that has not sent its request yet was not reached.
            await asyncio.wait([self._scoring], timeout=0.05)

    async def _answer(self, turn: Turn, variant: LiveVariant, threads: int) -> None:
        answer = turn.answers[variant.label]
        if self._stopping:
            answer.never_asked()
            return
        messages = self.conversation.messages_for(variant.label, turn)
        request = chat_request(turn.number, messages, self.generation, threads=threads)
        await variant.answer(request, answer)
