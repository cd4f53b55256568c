"""A measurement: runs rounds, watches the machine, and collects warnings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic

from quantchat.measuring import steadiness
from quantchat.measuring.rounds import DisturbedTurn, MeasuredTurn, Plan, Rounds
from quantchat.measuring.watch import Watch
from quantchat.session.comparison import Comparison
from quantchat.session.conversation import Answer
from quantchat.session.live_variant import LiveVariant
from quantchat.system.energy import Energy
from quantchat.system.gpus import GpuSample
from quantchat.system.sampler import DeviceSample, DeviceSampler
from quantchat.system.visible_gpus import cuda_name, gpus_visible_here
from quantchat.wire.variant import STARTED_SERVER, decode_modes_differ

MOST_CLOCK_CHANGE = 0.05
"""If the clock of a GPU's streaming multiprocessors (SM clock) changes by more than this share, a
warning says so."""

MOST_TEMPERATURE_CHANGE_C = 10
"""If a GPU's temperature changes by more than this, a warning says so."""


@dataclass
class Measurement:
    """Measures `plan` on the two sides of `comparison`, and records what may disturb the result."""

    comparison: Comparison
    plan: Plan
    sampler: DeviceSampler
    on_step: Callable[[int, int, str], None] = lambda done, total, detail: None
    samples: list[DeviceSample] = field(default_factory=list)
    """Samples of the machine, taken before each round and at the end."""

    def __post_init__(self) -> None:
        self._watch = Watch(self.comparison.sides)
        self._rounds = Rounds(
            self.comparison, self.plan, self._step, self._metered, self._watch.turn
        )
        self._gpus: dict[str, list[GpuSample]] = {}
        """Samples of the GPUs that the variants ran on, by GPU name."""
        self._foreign_processes: dict[str, int] = {}
        """Largest number of processes that are not quantchat's on each of these GPUs, by GPU name.
        """

    @property
    def measured(self) -> list[MeasuredTurn]:
        """The turns measured so far."""
        return self._rounds.measured

    @property
    def disturbed(self) -> list[DisturbedTurn]:
        """Disturbed turns, which were measured again or left out."""
        return self._rounds.disturbed

    @property
    def stopped(self) -> bool:
        """Whether the measurement ended early."""
        return self._rounds.stopped

    async def run(self) -> None:
        """Measure until the plan is finished or `stop` is called."""
        async with self._watch.running():
            await self._rounds.run()

    def stop(self) -> None:
        """Stop soon; `measured` has the turns so far."""
        self._rounds.stop()

    def end(self) -> None:
        """Stop at once, and end the workers that are busy; `measured` has the turns so far."""
        self._rounds.end()

    def _step(self, done: int, total: int, detail: str) -> None:
        # Sample the machine before each round and at the end: often enough to see a falling clock,
        # and seldom enough not to disturb the measurement.
        after_warmup = done - self.plan.warmup
        if after_warmup >= 0 and (after_warmup % len(self.plan.tasks) == 0 or done == total):
            sample = self.sampler.sample()
            self.samples.append(sample)
            self._look_at_gpus(sample)
            self._watch.between_rounds()
        self.on_step(done, total, detail)

    def _look_at_gpus(self, sample: DeviceSample) -> None:
        variants = self.comparison.variants
        own = {variant.pid for variant in variants if variant.pid is not None}
        used = Counter(d for variant in variants if variant.ledger for d in variant.ledger.devices)
        # The ledger of a server that quantchat started names no GPU, so look for the server's
        # processes on the GPUs.
        servers = [
            self.sampler.process_tree(variant.pid)
            for variant in variants
            if variant.pid is not None
            and variant.ledger
            and variant.ledger.device == STARTED_SERVER
        ]
        own.update(*servers)
        shown = gpus_visible_here(sample.gpus)
        there = Counter(d for variant in variants for d in _with_context(variant, len(shown)))
        for gpu in sample.gpus:
            serving = sum(
                not process_tree.isdisjoint(gpu.processes or []) for process_tree in servers
            )
            device = cuda_name(gpu, shown)
            if serving or used[device]:
                name = f"GPU {gpu.index}"
                self._gpus.setdefault(name, []).append(gpu)
                others = self.sampler.foreign_processes(gpu, own, serving + there[device])
                if others > self._foreign_processes.get(name, 0):
                    self._foreign_processes[name] = others

    @contextmanager
    def _metered(self, variant: LiveVariant, answer: Answer) -> Iterator[None]:
        """Record in `answer` the energy that the GPUs of `variant` use within this context.

        Without an energy counter, `answer` stays unchanged.
        """
        devices = variant.ledger.devices if variant.ledger else []
        before, began = self.sampler.energy_mj(*devices), monotonic()
        yield
        seconds, after = monotonic() - began, self.sampler.energy_mj(*devices)
        if before is not None and after is not None and after > before:
            answer.energy = Energy((after - before) / 1000, seconds)

    @property
    def flags(self) -> list[str]:
        """The warnings, one line each; empty if there are none."""
        return [
            *_disturbed_turns(self._rounds.disturbed),
            *steadiness.warnings(self.measured),
            *self._watch.flags,
            *_different_answer_lengths(self.measured),
            *_different_templates(self.comparison.sides),
            *_different_decode_modes(self.comparison.sides),
            *_different_prompt_lengths(self.measured),
            *_cached_prompts(self.comparison.sides),
            *_unsteady_gpus(self._gpus),
            *_shared_gpus(self._foreign_processes),
        ]


def _with_context(variant: LiveVariant, gpus: int) -> list[str]:
    """Return the devices on which the worker of `variant` has a CUDA context, such as "cuda:0".

    These are the devices on which the worker runs. With `device = "auto"`, they are also the GPUs
    whose free memory the worker read in order to choose one. NVML lists the worker as a process on
    each of them. `gpus` is the number of visible GPUs.
    """
    devices = variant.ledger.devices if variant.ledger else []
    kind, _, number = devices[0].partition(":") if devices else ("", "", "")
    if kind != "cuda" or variant.spec.device != "auto":
        return devices
    with_context = gpus if len(devices) > 1 else int(number or 0) + 1
    return [f"cuda:{index}" for index in range(with_context)]


def _disturbed_turns(disturbed: Sequence[DisturbedTurn]) -> list[str]:
    """Return warnings about turns that were measured again or left out after a disturbance."""
    lost = {(turn.round, turn.task): turn.reason for turn in disturbed if turn.left_out}
    again = {key: turn.reason for turn in disturbed if (key := (turn.round, turn.task)) not in lost}
    lines = [
        f"prompt {task + 1}, round {number}: left out, because it was disturbed each time "
        f"({reason})"
        for (number, task), reason in lost.items()
    ]
    if again:
        first, count = next(iter(again.values())), len(again)
        lines.append(f"{count} turn{'s were' if count > 1 else ' was'} measured again: {first}")
    return lines


def _different_answer_lengths(measured: Sequence[MeasuredTurn]) -> list[str]:
    """Return a warning about tasks with answers of different lengths on the two sides."""
    tasks = sorted(
        {
            measured_turn.task + 1
            for measured_turn in measured
            if len({n for a in measured_turn.turn.answers.values() if (n := a.output_tokens) >= 0})
            > 1
        }
    )
    if not tasks:
        return []
    which = ", ".join(map(str, tasks))
    return [
        f"prompt {which}: the sides gave answers of different length, "
        "so end-to-end times are not for the same work (--ignore-eos makes answers equally long)"
    ]


def _different_templates(sides: Sequence[LiveVariant]) -> list[str]:
    """Return a warning if only one side applies a chat template."""
    templates = {side.label: side.model_info.chat_template for side in sides if side.model_info}
    if len(set(templates.values())) < 2:
        return []
    without = next(label for label, has in templates.items() if not has)
    return [f"{without} has no chat template, but the other side has one: the prompts differ"]


def _different_decode_modes(sides: Sequence[LiveVariant]) -> list[str]:
    """Return a warning if the sides used different decode modes."""
    a, b = sides[0], sides[-1]
    if not decode_modes_differ(a.model_info, b.model_info):
        return []
    assert a.model_info is not None and b.model_info is not None  # noqa: S101 - they differ
    return [
        f"the sides use different decode modes ({a.label}: {a.model_info.decode}; {b.label}: "
        f"{b.model_info.decode}): the ratio of their speeds compares the decode modes as well as "
        "the quantization"
    ]


def _different_prompt_lengths(measured: Sequence[MeasuredTurn]) -> list[str]:
    """Return a warning about the first prompt that has a different token count on each side.

    Only comparisons with a server are checked: its tokenizer and chat template are unknown, but
    should be the same as on the other side. Two local variants may well have different tokenizers.
    """
    for measured_turn in measured:
        answers = list(measured_turn.turn.answers.values())
        read = {a.variant: a.prompt_tokens for a in answers if a.prompt_tokens > 0}
        if len(set(read.values())) > 1 and any(a.from_server for a in answers):
            counts = ", ".join(f"{label} {count}" for label, count in read.items())
            return [
                f"prompt {measured_turn.task + 1}: the sides read different numbers of tokens "
                f"({counts}): their chat templates or tokenizers differ, and the answers may "
                "differ for this reason alone"
            ]
    return []


def _cached_prompts(sides: Sequence[LiveVariant]) -> list[str]:
    """Return warnings about servers that take repeated prompts from their cache."""
    return [
        f"{side.label}: the server caches prompts, and this cannot be turned off: from the second "
        "time on, the TTFT of a prompt is without its prefill"
        for side in sides
        if side.ready and side.ready.keeps_prompts
    ]


def _unsteady_gpus(readings: Mapping[str, Sequence[GpuSample]]) -> list[str]:
    """Return warnings about the GPUs, such as changing clocks or throttling."""
    flags = []
    for name, gpus in readings.items():
        clocks = _known_figures(gpus, "sm_clock_mhz")
        if clocks and max(clocks) > min(clocks) * (1 + MOST_CLOCK_CHANGE):
            flags.append(f"{name}: SM clock between {min(clocks):.0f} and {max(clocks):.0f} MHz")
        heat = _known_figures(gpus, "temperature_c")
        if heat and max(heat) - min(heat) > MOST_TEMPERATURE_CHANGE_C:
            flags.append(f"{name}: temperature between {min(heat):.0f} and {max(heat):.0f} °C")
        reasons = sorted({reason for gpu in gpus for reason in gpu.throttle or []})
        if reasons:
            flags.append(f"{name}: clocks throttled by {', '.join(reasons)}")
    return flags


def _shared_gpus(foreign_processes: Mapping[str, int]) -> list[str]:
    """Return warnings about GPUs on which foreign processes were running."""
    return [
        f"{name}: {count} other process{'es' if count > 1 else ''} used the GPU"
        for name, count in foreign_processes.items()
    ]


def _known_figures(gpus: Sequence[GpuSample], figure: str) -> list[float]:
    return [value for gpu in gpus if (value := getattr(gpu, figure)) is not None]
