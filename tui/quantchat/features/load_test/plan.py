"""The plan of a load test: its settings, and its levels (requests at once, or per second)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quantchat.engines.registry import engine_of
from quantchat.errors import UserError
from quantchat.profile.model import Profile
from quantchat.session import prompts
from quantchat.wire.jobs import LoadTestLevel

LEVELS = (1, 4, 16)
"""Default numbers of requests at once."""

MOST_AT_ONCE, MOST_RATE = 4096, 1e5
"""Upper limits: requests at once, and requests per second."""

PROMPT_TOKENS, OUTPUT_TOKENS, ROUNDS = 128, 128, 3
"""Defaults: tokens of a prompt, tokens of an answer, and rounds of each level."""


@dataclass(frozen=True)
class LoadTestPlan:
    """The levels of a load test and its settings, named as in `LoadTestRecord`."""

    levels: tuple[LoadTestLevel, ...]
    prompts: tuple[str, ...]
    prompt_tokens: int
    output_tokens: int
    mixed: bool
    requests: int
    rounds: int
    seed: int
    slo: str = ""

    @property
    def batches(self) -> list[int]:
        """The sizes of the batches that a local model decodes, ascending."""
        return sorted({level.concurrency for level in self.levels if level.concurrency})

    def check(self, profile: Profile) -> None:
        """Raise UserError if a variant of `profile` cannot be tested at the levels of this plan."""
        for spec in profile.variants:
            if not engine_of(spec).is_server and not self.batches:
                raise UserError(
                    "a local model decodes static batches: requests cannot arrive at a rate",
                    where=spec.label,
                    hint="give --concurrency, or measure a server",
                )


def plan_of(
    texts: Sequence[str],
    *,
    at_once: Sequence[int] = (),
    rates: Sequence[float] = (),
    requests: int | None = None,
    prompt_tokens: int | None = None,
    output_tokens: int = OUTPUT_TOKENS,
    mixed: bool = False,
    rounds: int = ROUNDS,
    seed: int = 0,
    slo: str = "",
) -> LoadTestPlan:
    """Return the plan of a load test; `texts` are the prompts for servers.

    `at_once` are numbers of requests at once, `rates` are requests per second. With both, requests
    arrive at these rates, and the highest of `at_once` limits how many are unanswered at a time.
    With `prompt_tokens`, `texts` are repeated or cut to about that length.
    """
    most = max(at_once) if at_once and rates else 0
    counts = at_once or (() if rates else LEVELS)
    return LoadTestPlan(
        levels=tuple(LoadTestLevel(most, rate) for rate in rates)
        or tuple(map(LoadTestLevel, counts)),
        prompts=prompts.lengthened(texts, prompt_tokens) if prompt_tokens else tuple(texts),
        prompt_tokens=prompt_tokens or PROMPT_TOKENS,
        output_tokens=output_tokens,
        mixed=mixed,
        requests=requests or 0,
        rounds=rounds,
        seed=seed,
        slo=slo,
    )


def levels_in(text: str) -> tuple[int, ...]:
    """Return the counts in `text`, such as `1,4,16`. Raises ValueError with an example."""
    try:
        counts = tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        counts = ()
    if not counts or min(counts) < 1 or max(counts) > MOST_AT_ONCE:
        raise ValueError(
            f"{text!r} is not a list of counts from 1 to {MOST_AT_ONCE}: give for example 1,4,16"
        )
    return counts


def rates_in(text: str) -> tuple[float, ...]:
    """Return the requests per second in `text`, such as `0.5,2`. Raises ValueError."""
    try:
        rates = tuple(dict.fromkeys(float(part) for part in text.split(",")))
    except ValueError:
        rates = (0.0,)
    if not all(0 < rate <= MOST_RATE for rate in rates):
        raise ValueError(f"{text!r} is not a list of requests per second: give for example 0.5,2,8")
    return rates
