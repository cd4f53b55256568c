"""Turns of votes beside chat turns: their numbers in requests to the worker and in snapshots."""

from __future__ import annotations

from pathlib import Path

from fakes.scripted_worker import Script, ScriptedProvider, starter
from fakes.waiting import until
from quantchat.features.votes.record import record_voting
from quantchat.features.votes.voting import VotePlan, Voting
from quantchat.profile.model import Profile
from quantchat.session.comparison import Comparison
from quantchat.session.live_variant import State
from quantchat.statistics.votes import Choice
from quantchat.wire.messages import Generate


async def test_no_turn_number_is_used_twice(tmp_path: Path) -> None:
    scripts = {label: Script() for label in ("A", "B")}
    variants = [{"label": s, "engine": "bitsandbytes", "model": "m"} for s in scripts]
    profile = Profile.model_validate({"name": "test", "variants": variants})
    comparison = Comparison(
        profile, provider=ScriptedProvider(scripts), start=starter(scripts, tmp_path)
    )
    comparison.open()
    await until(lambda: all(v.state is State.READY for v in comparison.sides))
    comparison.ask("chat")
    await comparison.wait()
    voting = Voting(comparison, VotePlan(("one", "two", "three"), seed=1))
    choices: tuple[Choice | None, ...] = ("left", None, "right")
    for choice in choices:
        ballot = voting.put()
        await until(lambda: voting.ballots[-1].turn.over)
        ballot.choice = choice
    comparison.new_chat()
    for prompt in ("new chat", "more"):
        comparison.ask(prompt)
        await comparison.wait()

    snapshot = record_voting(voting)
    await comparison.close()
    asked = [command.turn for command in scripts["A"].commands if isinstance(command, Generate)]
    assert asked == [1, 2, 3, 4, 5, 6]
    assert [(turn.number, turn.prompt) for turn in snapshot.turns] == [
        (1, "new chat"), (2, "more"), (3, "one"), (4, "three"),
    ]  # fmt: skip
    assert snapshot.voting is not None
    assert [(vote.turn, vote.choice) for vote in snapshot.voting.votes] == [
        (3, "left"), (4, "right"),
    ]  # fmt: skip
