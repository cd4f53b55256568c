"""The comparison: a profile's variants, the pair that is shown, and the conversation with it.

The screen and the commands without a screen use the same object. Everything here runs on one
asyncio loop. Tokens and figures are state that a reader polls (a screen draws a few times per
second); only rare changes are reported with `on_change`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Container, Iterable, Iterator
from dataclasses import dataclass

from quantchat.checkpoints.provider import CheckpointProvider
from quantchat.host.watchdog import watchdog
from quantchat.host.worker_process import StartWorker, start_worker
from quantchat.profile.model import Generation, Profile
from quantchat.session.conversation import Answer, Conversation, History, Order, Turn
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
    """The variants of `profile`; two of them, the `pair`, are shown: they are loaded and answer.

    If the profile has a single variant, as the feature `pick` needs it, `pair` has one index.
    `start` starts a worker; tests pass a function that starts no process.
    """

    def __init__(
        self,
        profile: Profile,
        *,
        provider: CheckpointProvider,
        start: StartWorker = start_worker,
        on_change: Callable[[Change], None] = lambda change: None,
    ) -> None:
        self.profile = profile
        self.generation: Generation = profile.generation
        self.order: Order = profile.run.order
        self.history: History = profile.run.history
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
                provider=provider,
                start=start,
                on_change=self._variant_changed,
                settings=lambda: self.generation,
            )
            for spec in profile.variants
        ]
        self.pair: tuple[int, ...] = (0, 1) if len(self.variants) > 1 else (0,)
        """Indices of the shown variants in `variants`, left and right."""
        self._recent: list[int] = list(range(len(self.variants)))
        """Indices of the variants, the most recently shown first."""
        self._asking: asyncio.Task[None] | None = None
        self._scoring: asyncio.Task[None] | None = None
        self._stopping = False
        self.pending: list[str] = []
        """Prompts to send one after another, each when the turn before is over."""
        self._occupied = False
        """Whether other work, such as a measurement, uses the pair."""
        self._closing = False

    # ------------------------------------------------------------ which variants

    @property
    def sides(self) -> tuple[LiveVariant, ...]:
        """The shown variants, left and right."""
        return tuple(self.variants[index] for index in self.pair)

    def open(self) -> None:
        """Start loading the pair. Returns at once; the variants report their progress."""
        for variant in self.sides:
            variant.begin()

    def recent_with(self, left: int, right: int) -> list[int]:
        """Return the indices of all variants: `left`, `right`, then the most recently shown."""
        return [left, right, *(index for index in self._recent if index not in (left, right))]

    def choose_pair(self, left: int, right: int, *, fitting: int = 2) -> None:
        """Show the variants `left` and `right` (indices); end those that may not stay loaded.

        The profile's `keep_loaded` says how many variants stay loaded; if it is "auto", this number
        is `fitting`, the number of variants that fit into memory. Raises ValueError if `left` and
        `right` are the same, or while answers are streaming.
        """
        if left == right:
            raise ValueError("choose two different variants")
        self._require_not_busy()
        self.before_loss()
        self.pair = (left, right)
        shown = {variant.label for variant in self.sides}
        for turn in self.conversation.turns:
            _drop_queued(turn, keep=shown)
        self._recent = self.recent_with(left, right)
        keep_loaded = self.profile.run.keep_loaded
        for index in self._recent[fitting if keep_loaded == "auto" else keep_loaded :]:
            self.variants[index].end()
        self.open()

    def swap(self) -> None:
        """Swap left and right."""
        left, right = self.pair
        self.pair = (right, left)

    async def close(self) -> None:
        """Stop everything and wait until no worker process is left."""
        self._closing = True
        for task in filter(None, (self._asking, self._scoring)):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await asyncio.gather(*(variant.close() for variant in self.variants))

    def _new_conversation(self) -> Conversation:
        return Conversation(system=self.generation.system, numbers=self.turn_numbers)

    def _variant_changed(self, variant: LiveVariant) -> None:
        self.on_change(VariantChanged(variant))
        if variant.state is State.READY:
            self._send_queued()

    # ------------------------------------------------------------ the conversation

    @property
    def busy(self) -> bool:
        """Whether a turn or other work uses the pair now."""
        return self._occupied or (self._asking is not None and not self._asking.done())

    @property
    def last_turn(self) -> Turn | None:
        """The newest turn, streaming or complete; None if there is none."""
        return self.conversation.turns[-1] if self.conversation.turns else None

    def ask(self, prompt: str) -> Turn:
        """Send `prompt` to each shown variant that is ready; return the turn, whose answers stream.

        For a variant that is being prepared or loaded, the prompt is queued. Raises ValueError
        while a turn is running, or if no shown variant is ready or will be.
        """
        self._require_not_busy()
        self._require_side()
        receivers = [one for one in self.sides if one.state is State.READY or one in self._loading]
        queued = [Answer(one.label, self.order, queued=True) for one in receivers]
        turn = self.conversation.begin(prompt, queued)
        turn.not_sent = {
            one.label: _WHY_NOT_SENT[one.state] for one in self.sides if one not in receivers
        }
        if self.history != "own":
            turn.history_of = self.sides[0 if self.history == "left" else 1].label
        self.on_change(TurnStarted(turn))
        self._send_queued()
        return turn

    @property
    def _loading(self) -> list[LiveVariant]:
        return [one for one in self.sides if one.will_be_ready]

    def _send_queued(self) -> None:
        """Let the ready sides answer the first prompt that is queued for one of them.

        If no prompt is queued for any variant, send the first of `pending`.
        """
        if self.busy or self._closing:
            return
        for turn in self.conversation.turns:
            queued = {label for label, answer in turn.answers.items() if answer.queued}
            ready = [one for one in self.sides if one.state is State.READY and one.label in queued]
            if ready:
                self._start(turn, ready)
                return
        if self.pending and not self.queued:
            self.ask(self.pending.pop(0))

    def ask_all(self, prompts: Iterable[str]) -> None:
        """Send `prompts` one after another. Raises ValueError as `ask` does."""
        self._require_not_busy()
        self._require_side()
        self.pending += prompts
        self._send_queued()

    def _start(self, turn: Turn, ready: list[LiveVariant]) -> None:
        # A variant that answers while the other one is being prepared or loaded shares the machine.
        loading = self._loading
        alone: Order = "together" if loading else "in-turn"
        order = self.order if len(ready) > 1 else alone
        for variant in ready:
            answer = turn.answers[variant.label]
            answer.queued, answer.order = False, order
        self._stopping = False
        at_work = len(ready) + len(loading) if order == "together" else 1
        self._asking = asyncio.ensure_future(self._run(turn, ready, order, threads_for(at_work)))

    def take_back(self) -> str | None:
        """Remove the prompts that still wait to be sent.

        A turn is removed too if its prompt was sent to no variant at all. Return the prompt of the
        last removed turn, or None if no turn was removed.
        """
        self.pending.clear()
        prompt = None
        for turn in list(self.conversation.turns):
            if _drop_queued(turn) and not turn.answers:
                self.conversation.turns.remove(turn)
                prompt = turn.prompt
        self.on_change(ConversationChanged())
        return prompt

    @property
    def queued(self) -> bool:
        """Whether a prompt of the conversation waits for a variant to be ready."""
        return any(a.queued for turn in self.conversation.turns for a in turn.answers.values())

    def ask_missing(self) -> int:
        """Queue the earlier prompts that a shown variant has not answered; return their number.

        A prompt counts once for each variant that was not asked, or whose answer failed without any
        text. Raises ValueError while a turn is running, or if such a variant is not loaded.
        """
        self._require_not_busy()
        count = 0
        for variant in self.sides:
            lacking = [t for t in self.conversation.turns if _lacks(t, variant.label)]
            if lacking and variant.state is not State.READY and variant not in self._loading:
                raise ValueError(f"{variant.label} is not loaded")
            for turn in lacking:
                turn.answers[variant.label] = Answer(variant.label, self.order, queued=True)
            count += len(lacking)
        if count:
            self.on_change(ConversationChanged())
            self._send_queued()
        return count

    def require_idle_pair(self) -> None:
        """Raise ValueError unless both shown variants are ready and idle."""
        self._require_not_busy()
        waiting = [one.label for one in self.sides if one.state is not State.READY]
        if waiting:
            raise ValueError(f"not ready yet: {', '.join(waiting)}")

    @contextlib.contextmanager
    def occupied(self) -> Iterator[None]:
        """Reserve the shown pair for other work within this context; prompts are refused meanwhile.

        Raises ValueError as `require_idle_pair` does.
        """
        self.require_idle_pair()
        self._occupied = True
        try:
            yield
        finally:
            self._occupied = False
            self._send_queued()

    async def wait(self) -> None:
        """Wait until the running turn, if any, is over."""
        if self._asking is not None:
            await asyncio.shield(self._asking)

    def stop(self) -> None:
        """Stop decoding on both sides; the text so far stays. Further prompts are not sent."""
        self.pending.clear()
        self._stopping = True
        for variant in self.variants:
            variant.stop()

    def replace_last(self, prompt: str | None = None) -> Turn:
        """Replace the last turn: send its prompt again (regenerate), or `prompt` (edit).

        If the answers are regenerated, the earlier ones stay in `Turn.others`. Raises ValueError as
        `ask` does, or if there is no turn; then nothing is removed.
        """
        last = self.last_turn
        if last is None:
            raise ValueError("there is no answer to regenerate yet")
        self._require_not_busy()
        self._require_side()
        same = prompt is None or prompt == last.prompt
        if not same:
            self.before_loss()
        self.conversation.drop_last()
        self.on_change(ConversationChanged())
        turn = self.ask(last.prompt if prompt is None else prompt)
        if same:
            turn.others = [one for one in last.versions if any(a.over for a in one.values())]
            turn.shown_version = len(turn.others)
        return turn

    def show_version(self, step: int) -> bool:
        """Show earlier (-1) or later (1) answers of the last turn; False if there are none.

        The next turn continues from the answers that are shown. Raises ValueError while a turn is
        running.
        """
        self._require_not_busy()
        turn = self.last_turn
        if turn is None or not turn.show_version(turn.shown_version + step):
            return False
        self.on_change(ConversationChanged())
        if greedy_divergence(turn) is not None:
            self._scoring = asyncio.ensure_future(self._score_divergence(turn))
        return True

    def new_chat(self) -> None:
        """Start a new conversation. Raises ValueError while a turn is running."""
        self._require_not_busy()
        self.before_loss()
        self.pending.clear()
        self.conversation = self._new_conversation()
        self.on_change(ConversationChanged())

    def remove_oldest(self) -> None:
        """Remove the oldest turn, to make room in a full context.

        Raises ValueError while a turn is running.
        """
        self._require_not_busy()
        self.before_loss()
        self.conversation.drop_oldest()
        self.on_change(ConversationChanged())

    def set_generation(self, generation: Generation) -> None:
        """Use these sampling settings and this system prompt from the next prompt on."""
        self.generation = generation
        self.conversation.system = generation.system

    def _require_side(self) -> None:
        """Raise ValueError unless a shown variant is ready, or is being prepared or loaded."""
        if not (self._loading or any(one.state is State.READY for one in self.sides)):
            raise ValueError("no variant is loaded or loading")

    def _require_not_busy(self) -> None:
        if self.busy:
            raise ValueError("an answer is streaming; stop it first")

    async def _run(self, turn: Turn, ready: list[LiveVariant], order: Order, threads: int) -> None:
        try:
            await self.end_scoring()
            if order == "together":
                await asyncio.gather(*(self._answer(turn, v, threads) for v in ready))
            else:
                # Every second turn starts with the other side (ABBA over two turns), so that the
                # device is not always cool, or throttled, for the same side.
                for variant in ready if turn.number % 2 else reversed(ready):
                    await self._answer(turn, variant, threads)
        finally:
            self.on_change(TurnEnded(turn))
            # Call it later: until this task is over, the pair counts as busy.
            asyncio.get_running_loop().call_soon(self._send_queued)
        if greedy_divergence(turn) is not None:
            self._scoring = asyncio.ensure_future(self._score_divergence(turn))

    async def _score_divergence(self, turn: Turn) -> None:
        variants = [one for label in turn.answers for one in self.variants if one.label == label]
        turn.divergence = await score_divergence(turn, variants[:2])
        self.on_change(DivergenceScored(turn))

    async def compute_cross_perplexity(self, turn: Turn) -> None:
        """Let each shown variant score both answers of `turn` into `Answer.cross_perplexities`.

        Raises ValueError while a turn is running, or if a variant is not ready.
        """
        self.require_idle_pair()
        if self._scoring is not None:
            await asyncio.wait([self._scoring])
        variants = [v for label in turn.answers for v in self.sides if v.label == label]
        self._scoring = asyncio.ensure_future(cross_perplexities(turn, variants))
        await asyncio.wait([self._scoring])

    @contextlib.asynccontextmanager
    async def ending_unresponsive_sides(self) -> AsyncIterator[None]:
        """End shown variants that do not respond (`LiveVariant.reason_to_end`) within this context.

        Use this for work that nobody may be watching. An ended variant is FAILED, and its failure
        says why.
        """

        def look(now_s: float) -> None:
            for variant in self.sides:
                failure = variant.reason_to_end(now_s)
                if failure is not None:
                    variant.end_with(failure)

        def excuse(now_s: float) -> None:
            for variant in self.sides:
                variant.reset_silence(now_s)

        async with watchdog(look, excuse):
            yield

    def end_busy_sides(self) -> None:
        """End the shown variants that are still working although they were asked to stop."""
        for variant in self.sides:
            if variant.busy:
                reason = "the worker did not stop when quantchat asked it to, so it was ended"
                variant.end_with(Failed("not_responding", reason, "reload the variant"))

    async def end_scoring(self) -> None:
        """Cancel running teacher forcing, which would disturb timings, and wait for its end."""
        while self._scoring is not None and not self._scoring.done():
            for variant in self.variants:
                variant.preempt()
            # Repeat, because `preempt` has no effect before the task has sent its request.
            await asyncio.wait([self._scoring], timeout=0.05)

    async def _answer(self, turn: Turn, variant: LiveVariant, threads: int) -> None:
        answer = turn.answers[variant.label]
        if self._stopping:
            answer.end_unsent()
            return
        messages = self.conversation.messages_for(variant.label, turn)
        request = chat_request(turn.number, messages, self.generation, threads=threads)
        await variant.answer(request, answer)


_WHY_NOT_SENT = {State.FAILED: "the variant had failed", State.IDLE: "the variant was not loaded"}
"""State of a variant → why a prompt was not sent to it."""


def _lacks(turn: Turn, label: str) -> bool:
    answer = turn.answers.get(label)
    return answer is None or (answer.failure is not None and not answer.text)


def _drop_queued(turn: Turn, keep: Container[str] = ()) -> bool:
    """Remove queued answers of `turn`, except of the labels `keep`; return whether any was."""
    dropped = [one for one, answer in turn.answers.items() if answer.queued and one not in keep]
    for label in dropped:
        del turn.answers[label]
        turn.not_sent[label] = "the prompt was taken back"
    return bool(dropped)
