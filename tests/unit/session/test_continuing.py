"""A saved chat continues as if it had begun in this session."""

from __future__ import annotations

from pathlib import Path

from fakes.scripted_worker import Script, ScriptedProvider, starter
from fakes.waiting import until
from quantchat.profile.model import Profile
from quantchat.session.comparison import Comparison
from quantchat.session.continuing import restore
from quantchat.session.live_variant import State
from quantchat.session.recorder import record
from quantchat.snapshot import store
from quantchat.statistics.drafts import Drafts
from quantchat.wire.messages import Generate


def made(scripts: dict[str, Script], folder: Path) -> Comparison:
    variants = [{"label": s, "engine": "bitsandbytes", "model": "m"} for s in scripts]
    profile = Profile.model_validate({"name": "test", "variants": variants})
    return Comparison(profile, provider=ScriptedProvider(scripts), start=starter(scripts, folder))


async def opened(scripts: dict[str, Script], folder: Path) -> Comparison:
    comparison = made(scripts, folder)
    comparison.open()
    await until(lambda: all(v.state is State.READY for v in comparison.sides))
    return comparison


async def test_a_snapshot_is_continued(tmp_path: Path) -> None:
    scripts = {label: Script() for label in ("A", "B")}
    scripts["A"].thought = lambda request: "Hm hm."
    before = await opened(scripts, tmp_path)
    before.ask("one")
    await before.wait()
    before.replace_last()
    await before.wait()
    await until(lambda: before.conversation.turns[0].divergence is not None)
    before.conversation.turns[0].answers["B"].drafts = Drafts(drafted=8, accepted=5, steps=3)
    snapshot = store.loads(store.dumps(record(before)), where="")
    await before.close()

    after = made(scripts, tmp_path)
    restore(after, snapshot)
    was, now = before.conversation.turns[0], after.conversation.turns[0]
    assert now.divergence == was.divergence and now.shown_version == 1 and len(now.others) == 1
    for label, answer in was.answers.items():
        again = now.answers[label]
        assert (again.text, again.thoughts, again.ids) == (answer.text, answer.thoughts, answer.ids)
        assert again.timing() == answer.timing()
        assert again.request is not None and answer.request is not None
        assert again.request.messages == answer.request.messages
        assert again.ran_on is not None and answer.ran_on is not None
        assert again.ran_on.model_info == answer.ran_on.model_info
    # What is saved again is what was saved.
    assert record(after).turns[0].answers == snapshot.turns[0].answers

    after.open()
    await until(lambda: all(v.state is State.READY for v in after.sides))
    after.ask("two")
    await after.wait()
    last = [c for c in scripts["B"].commands if isinstance(c, Generate)][-1]
    assert [m.content for m in last.messages] == ["one", was.answers["B"].text, "two"]
    await after.close()


async def test_an_answer_that_had_not_ended_counts_as_stopped(tmp_path: Path) -> None:
    scripts = {label: Script(holds_after=2) for label in ("A", "B")}
    before = await opened(scripts, tmp_path)
    turn = before.ask("one")
    await until(lambda: all(len(answer.ids) == 2 for answer in turn.answers.values()))
    snapshot = record(before)
    await before.close()
    after = made(scripts, tmp_path)
    restore(after, snapshot)
    assert {answer.reason for answer in after.conversation.turns[0].answers.values()} == {"stop"}


async def test_prompts_are_sent_one_after_another_until_stopped(tmp_path: Path) -> None:
    scripts = {label: Script() for label in ("A", "B")}
    comparison = await opened(scripts, tmp_path)
    comparison.ask_all(["one", "two", "three"])
    await until(lambda: len(comparison.conversation.turns) == 3 and not comparison.busy)
    assert [turn.prompt for turn in comparison.conversation.turns] == ["one", "two", "three"]
    scripts["A"].holds_after = 1
    comparison.ask_all(["four", "five"])
    await until(lambda: len(comparison.conversation.turns) == 4)
    comparison.stop()
    await until(lambda: not comparison.busy)
    assert [turn.prompt for turn in comparison.conversation.turns][3:] == ["four"]
    await comparison.close()
