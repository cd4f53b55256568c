"""A rerun repeats the saved variants, prompts, rounds, order and settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

import quantchat.features.measure.rerun_cli
from fakes.saved_snapshots import answer, hostile_snapshots, snapshot
from fakes.scripted_worker import Script, ScriptedProvider, starter
from fakes.timed_snapshots import measured
from quantchat.cli import main
from quantchat.errors import UserError
from quantchat.features.measure.rerun import Rerun, rerun_of
from quantchat.measuring.measure import measure
from quantchat.measuring.rounds import Plan, Task
from quantchat.profile.model import Profile
from quantchat.session.comparison import Comparison
from quantchat.snapshot import store
from quantchat.snapshot.schema import RequestRecord, Snapshot, TurnRecord
from quantchat.wire.messages import Sampling

PROFILE = {
    "name": "test",
    "variants": [
        {"label": label, "engine": "bitsandbytes", "model": "org/model"}
        for label in ("first", "GPTQ", "NF4")
    ],
    "generation": {"max_new_tokens": 99, "system": "Be brief."},
}


def of(one: Snapshot) -> Rerun:
    return rerun_of(one, where="s.json")


PLANS = [
    Plan((Task("one"), Task("two")), rounds=2, warmup=0, ignore_eos=True),
    Plan((Task("one", 128, 16), Task("one", 128, 32)), rounds=1, order="together"),
]


@pytest.mark.parametrize("plan", PLANS)
async def test_what_was_measured_comes_back(plan: Plan, tmp_path: Path) -> None:
    profile = Profile.model_validate(PROFILE)
    scripts = {variant.label: Script() for variant in profile.variants}
    comparison = Comparison(
        profile, provider=ScriptedProvider(scripts), start=starter(scripts, tmp_path)
    )
    comparison.pair = (2, 1)
    settings = profile.generation.model_copy(update={"max_new_tokens": 7, "temperature": 0.5})
    comparison.set_generation(settings)
    taken = await measure(comparison, plan)
    found = of(store.load(store.save(taken, tmp_path)))
    assert (found.plan, found.pair, found.notes) == (plan, (2, 1), ())
    assert found.profile.variants == profile.variants
    asked = found.profile.generation
    assert (asked.system, asked.temperature) == ("Be brief.", 0.5)
    # Where each task has a length of its own, nobody asked for the settings' one.
    assert asked.max_new_tokens == (99 if plan.tasks[0].output_tokens else 7)


def chat(*requests: RequestRecord, **changes: Any) -> Snapshot:
    turns = [
        TurnRecord(
            number=number,
            prompt=f"prompt {number}",
            answers=[answer(label, request=request) for label in ("GPTQ", "NF4")],
            divergence_point=None,
        )
        for number, request in enumerate(requests, 1)
    ]
    return snapshot(turns=turns, profile=PROFILE, **changes)


def request(**changes: Any) -> RequestRecord:
    fields: dict[str, Any] = {
        "system": "",
        "messages": 1,
        "sampling": Sampling(),
        "max_new_tokens": 64,
        "threads": 1,
    }
    return RequestRecord(**{**fields, **changes})


def test_of_a_chat_the_prompts_are_measured() -> None:
    found = of(chat(request(), request()))
    assert found.plan == Plan((Task("prompt 1"), Task("prompt 2")), 5, 1, "together")
    assert found.profile.generation.max_new_tokens == 64
    (note,) = found.notes
    assert "the snapshot is a chat" in note


def test_a_change_of_settings_is_told() -> None:
    found = of(chat(request(), request(sampling=Sampling(temperature=0.7, seed=3))))
    assert found.profile.generation.temperature == 0.7
    assert any("the last ones are used" in note for note in found.notes)


def test_all_settings_come_back() -> None:
    sampling = Sampling(0.7, stop=["User:"], logit_bias={"198": -100.0}, max_thinking_tokens=9)
    found = of(chat(request(sampling=sampling), request(sampling=sampling)))
    settings = found.profile.generation
    assert (settings.stop, settings.logit_bias) == (["User:"], {"198": -100.0})
    assert settings.max_thinking_tokens == 9
    assert not any("the last ones are used" in note for note in found.notes)


def without_tasks() -> Snapshot:
    one = measured(profile=PROFILE)
    assert one.measurement is not None
    record = one.measurement.model_copy(update={"tasks": []})
    return one.model_copy(update={"measurement": record})


def with_measurement(**changes: Any) -> Snapshot:
    one = measured(profile=PROFILE)
    assert one.measurement is not None
    return one.model_copy(update={"measurement": one.measurement.model_copy(update=changes)})


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (chat(), "s.json: the snapshot has no prompt to measure"),
        (without_tasks(), "s.json: the snapshot has no prompt to measure"),
        (
            chat(request(), shown=["GPTQ", "other"]),
            "the profile in the snapshot lacks the two variants",
        ),
        (chat(request(), shown=["GPTQ"]), "the profile in the snapshot lacks the two variants"),
        (
            chat(request(max_new_tokens=0)),
            "this version of quantchat cannot run it: max_new_tokens: ",
        ),
        (with_measurement(rounds=10**9), "this version of quantchat cannot run it: rounds: "),
        (measured(profile={"name": "x"}), "this version of quantchat cannot run it: variants: "),
    ],
)
def test_what_cannot_be_done_again_is_told(wrong: Snapshot, said: str) -> None:
    with pytest.raises(UserError) as caught:
        of(wrong)
    assert said in str(caught.value)


def test_an_impossible_length_is_told() -> None:
    record = with_measurement().measurement
    assert record is not None
    task = record.tasks[0].model_copy(update={"prompt_tokens": -1})
    with pytest.raises(UserError, match="invalid length"):
        of(with_measurement(tasks=[task]))


@given(hostile_snapshots)
def test_any_snapshot_is_done_again_or_told(hostile: Snapshot) -> None:
    for profile in (hostile.profile, PROFILE):
        one = hostile.model_copy(update={"profile": profile, "shown": ["NF4", "GPTQ"]})
        try:
            found = of(one)
        except UserError:
            continue
        assert found.plan.tasks


# ------------------------------------------------------------ the command

Called = list[tuple[Comparison, Plan, Path | None, bool]]


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Called:
    """What would have been measured; nothing is."""
    calls: Called = []

    def measuring(comparison: Comparison, plan: Plan, folder: Path | None, *, as_json: bool) -> int:
        calls.append((comparison, plan, folder, as_json))
        return 0

    monkeypatch.setattr(quantchat.features.measure.rerun_cli, "measure_and_print", measuring)
    monkeypatch.setenv("QUANTCHAT_SNAPSHOTS", str(tmp_path))
    return calls


def test_rerun(called: Called, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = store.save(chat(request()), tmp_path)
    assert main(["rerun", file.stem, "--save", "there", "--json"]) == 0
    ((comparison, plan, folder, as_json),) = called
    assert [side.label for side in comparison.sides] == ["GPTQ", "NF4"]
    assert plan.tasks == (Task("prompt 1"),)
    assert (folder, as_json) == (Path("there"), True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("note: the snapshot is a chat")


@pytest.mark.parametrize(
    ("risk", "said"),
    [
        ({"python": "/other/python"}, '"NF4" runs under /other/python'),
        ({"env": "bnb-0.49"}, '"NF4" runs in the environment bnb-0.49'),
        ({"trust_remote_code": True}, "runs the model's own code"),
    ],
)
def test_a_snapshot_runs_no_other_code_untrusted(
    called: Called,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    risk: dict[str, Any],
    said: str,
) -> None:
    *others, last = Profile.model_validate(PROFILE).model_dump()["variants"]
    profile = {**PROFILE, "variants": [*others, {**last, **risk}]}
    file = store.save(measured(profile=profile), tmp_path)
    assert main(["rerun", str(file)]) == 2
    assert not called
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert "--trust" in line
    assert main(["rerun", str(file), "--trust"]) == 0
    assert len(called) == 1
