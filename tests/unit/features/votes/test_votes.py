"""Blind votes: the exact test against known values, and properties for any votes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from fakes.saved_snapshots import snapshot
from quantchat.cli import main
from quantchat.document.document import Facts, Table
from quantchat.document.html import html
from quantchat.document.markdown import markdown
from quantchat.errors import UserError
from quantchat.features.votes import tables as report
from quantchat.profile.model import Profile
from quantchat.profile.toml_out import to_toml
from quantchat.report.content import content
from quantchat.snapshot import store
from quantchat.snapshot.pooled_votes import pool_votes
from quantchat.snapshot.schema import Snapshot
from quantchat.snapshot.votes import VoteRecord, VotingRecord
from quantchat.statistics.votes import LEVEL, POWER, Tally, sign_test, tally, votes_needed

counts = st.integers(0, 60)
tallies = st.builds(Tally, a=counts, b=counts, ties=counts, bad=counts, seen=counts)


@pytest.mark.parametrize(
    ("a", "b", "p", "low", "high"),
    [
        # By hand: 2 * (C(10,0) + C(10,1)) / 2^10, and Clopper and Pearson's published limits.
        (9, 1, 22 / 1024, 0.5550, 0.9975),
        (5, 5, 1.0, 0.1871, 0.8129),
        (5, 0, 2 / 32, 0.4782, 1.0),
        (0, 6, 2 / 64, 0.0, 0.4593),
    ],
)
def test_known_values(a: int, b: int, p: float, low: float, high: float) -> None:
    test = sign_test(Tally(a, b))
    assert test is not None
    assert test.p == pytest.approx(p)
    assert test.low == pytest.approx(low, abs=1e-4)
    assert test.high == pytest.approx(high, abs=1e-4)
    assert test.shown == (p < LEVEL)


def test_no_choice_is_nothing_to_test() -> None:
    assert sign_test(Tally(ties=4, bad=2, seen=9)) is None


@given(tallies)
@settings(max_examples=60, deadline=None)
def test_the_sides_are_alike_and_ties_change_no_p(votes: Tally) -> None:
    test, turned = sign_test(votes), sign_test(Tally(votes.b, votes.a, votes.ties, votes.bad))
    if test is None or turned is None:
        assert votes.decided == 0
        return
    assert test.p == pytest.approx(turned.p)
    assert test.low == pytest.approx(1 - turned.high)
    assert test.low <= test.share <= test.high
    assert sign_test(Tally(votes.a, votes.b)).p == test.p  # type: ignore[union-attr]
    assert (test.more == 0) == (test.p < LEVEL)


def power(votes: int, share: float) -> float:
    """Chance that the exact test shows a difference, summed outcome by outcome."""
    return math.fsum(
        math.comb(votes, wins) * share**wins * (1 - share) ** (votes - wins)
        for wins in range(votes + 1)
        if binomtest(wins, votes).pvalue < LEVEL
    )


@pytest.mark.parametrize("share", [0.75, 0.2, 0.9])
def test_so_many_votes_have_the_power_and_one_less_has_not(share: float) -> None:
    wanted = votes_needed(share)
    assert wanted is not None
    assert power(wanted, share) >= POWER
    assert all(power(fewer, share) < POWER for fewer in range(1, wanted))


def test_a_share_of_one_half_is_never_told_apart() -> None:
    assert votes_needed(0.5) is None
    assert sign_test(Tally(5, 5)).more is None  # type: ignore[union-attr]
    assert votes_needed(1.0) == 6  # the fewest at which p can be below 0.05


def test_more_votes_count_ties_in() -> None:
    without, with_ties = sign_test(Tally(4, 2)), sign_test(Tally(4, 2, ties=6))
    assert without is not None and without.more is not None
    assert with_ties is not None and with_ties.more == 2 * without.more


def session(created: str = "2026-11-25T03:00:00+00:00", *chosen: str, seed: int = 1) -> Snapshot:
    a, b = snapshot().shown
    votes = [
        VoteRecord(turn=n, left=(a, b)[n % 2], right=(b, a)[n % 2], choice=c, seen=c == "seen")  # type: ignore[arg-type]
        for n, c in enumerate(chosen)
    ]
    voting = VotingRecord(seed=seed, paced=True, votes=votes)
    return snapshot().model_copy(update={"voting": voting, "created": created})


def test_sides_are_turned_back_into_variants() -> None:
    votes = [("A", "B", "left", False), ("B", "A", "left", False), ("B", "A", "right", False)]
    votes += [("A", "B", "tie", False), ("A", "B", "bad", False), ("A", "B", "left", True)]
    assert tally(votes, "A") == Tally(a=2, b=1, ties=1, bad=1, seen=1)  # type: ignore[arg-type]


def test_sessions_are_counted_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = session("2026-11-25T03:00:00+00:00", "left", "left", "left", "tie")
    two = session("2026-11-25T04:00:00+00:00", "left", "right", "bad", seed=2)
    files = []
    for number, each in enumerate((one, two)):
        files.append(tmp_path / f"{number}.json")
        files[-1].write_bytes(store.dumps(each))
        assert store.load(files[-1]) == each
    assert main(["compare", *map(str, files), "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert body["total"] == {"a": 4, "b": 1, "ties": 1, "bad": 1, "seen": 0}
    assert [each["a"] for each in body["sessions"]] == [2, 2]
    assert body["sign_test"]["p"] == pytest.approx(12 / 32)
    assert main(["compare", *map(str, files)]) == 0
    out = capsys.readouterr().out
    assert "2 sessions of blind votes" in out and "no preference shown" in out
    assert main(["compare", str(files[0])]) == 0
    assert "1 session of blind votes" in capsys.readouterr().out
    assert main(["compare", str(files[0]), str(files[0])]) == 2
    assert "would count double" in capsys.readouterr().err
    assert main(["compare", str(files[0]), "--fail-if", "a.tpot_ms > 1"]) == 2
    assert main(["snapshots", "show", str(files[0])]) == 0
    assert "blind votes:" in capsys.readouterr().out


def test_votes_on_one_prompt_are_told_to_be_no_new_ones() -> None:
    one = session("2026-11-25T03:00:00+00:00", "left", "tie", "right")
    turns = [one.turns[0].model_copy(update={"number": n, "prompt": "abc"[n]}) for n in range(3)]
    one = one.model_copy(update={"turns": turns})
    other = one.model_copy(update={"created": "2026-11-25T04:00:00+00:00"})
    assert pool_votes([("1", one)]).repeated_votes == 0
    both = pool_votes([("1", one), ("2", other)])
    assert both.repeated_votes == 2  # the tie chose no side
    assert report.json_document(both)["repeated"] == 2
    told = report.lines(both.a, both.b, both.total, both.repeated_votes)
    assert any(line.startswith("not independent: 2 votes on a prompt") for line in told)
    assert not any("not independent" in line for line in report.result(one))


def test_other_variants_are_not_pooled() -> None:
    one = session("2026-11-25T03:00:00+00:00", "left")
    with pytest.raises(UserError, match="has votes on other variants"):
        pool_votes([("1", one), ("2", one.model_copy(update={"shown": ["X", "Y"]}))])
    with pytest.raises(UserError, match="has no votes"):
        pool_votes([("1", one), ("2", snapshot())])


@given(tallies)
@settings(max_examples=40, deadline=None)
def test_every_result_can_be_told(votes: Tally) -> None:
    told = report.lines("left\x1b[31m", "right", votes)
    assert told[0].startswith("blind votes: left")
    assert all("\x1b" not in line and "\n" not in line for line in told)


def test_votes_need_a_terminal_and_prompts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["vote", "demo"]) == 2
    assert "needs a terminal" in capsys.readouterr().err
    assert main(["vote", "demo", "--prompts", str(tmp_path / "none.txt")]) == 2
    assert "none.txt" in capsys.readouterr().err


def test_the_result_is_printed_as_json_once_the_screen_is_closed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = store.save(session("2026-11-25T03:00:00+00:00", "left", "tie", "left"), tmp_path)
    voted = [file]

    def run(*_: object, on_voted: Callable[[Path], None], **__: object) -> int:
        for saved in voted:
            on_voted(saved)
        return 0

    monkeypatch.setattr("quantchat.app.run", run)
    assert main(["vote", "demo", "--prompt", "One?", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    expected = report.json_document(pool_votes([("one", store.load(file))]))
    assert printed == {**expected, "snapshot": str(file)}
    assert printed["total"]["ties"] == 1 and printed["sign_test"]["p"]
    voted.clear()
    assert main(["vote", "demo", "--prompt", "One?", "--json"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "no votes were given" in err


def test_a_report_tells_them() -> None:
    voted = session("2026-11-25T03:00:00+00:00", "left", "tie", "left")
    said = content([("votes.json", voted)])
    section, *_ = said.sections
    facts, *_ = section.parts
    assert isinstance(facts, Facts)
    assert list(facts.lines)[-len(report.result(voted)) :] == report.result(voted)
    (table,) = [one for one in section.parts if isinstance(one, Table) and one.title == "Votes"]
    assert [column.heading for column in table.columns] == ["prompt", "left", "right", "chosen"]
    assert len(table.rows) == 3
    for text in (html(said).decode(), markdown(said, "files").decode()):
        assert "exact sign test p" in text and "chosen" in text
    assert report.result(snapshot()) == []


def test_all_pairs_are_voted_on_until_a_screen_is_left_without_a_vote(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = ["A", "B", "C", "D", "E"]
    variants = [{"label": one, "engine": "transformers", "model": "org/x"} for one in labels]
    five = Profile.model_validate({"name": "five", "variants": variants})
    (tmp_path / "five.toml").write_text(to_toml(five))
    shown: list[list[str]] = []
    votes = [["left"] * 6, ["right"] * 9, []]

    def run(asked: Profile, *, on_voted: Callable[[Path], None], **_: object) -> int:
        choices = votes[len(shown)]
        shown.append([variant.label for variant in asked.variants[:2]])
        if choices:
            voted = session(f"2026-11-25T0{len(shown)}:00:00+00:00", *choices)
            on_voted(store.save(voted, tmp_path))
        return 0

    monkeypatch.setattr("quantchat.app.run", run)
    vote = ["vote", str(tmp_path / "five.toml"), "--prompt", "One?", "--variants", "all"]
    assert main(vote) == 0
    out, err = capsys.readouterr()
    assert shown == [["A", "B"], ["A", "C"], ["A", "D"]]
    assert "quantchat: A and B" in err and "quantchat: left out: A with E" in err
    assert "Blind votes of each pair" in out
    assert main([*vote, "--json"]) == 2
    assert "result of one pair" in capsys.readouterr().err


def test_p_of_several_pairs_is_corrected_for_their_number() -> None:
    a, b = snapshot().shown
    for_a, for_b = ("left", "right"), ("right", "left")  # the sides change with each vote
    sessions = [session("", *choices) for choices in (for_a * 3, (*for_b * 4, "right"), ("tie",))]
    (table,) = report.pairs_blocks(sessions)
    assert isinstance(table, Table)
    assert [[cell.text for cell in row[1:]] for row in table.rows] == [
        ["6", "0", "0", "0", "0.031", "0.031", a],
        ["0", "9", "0", "0", "0.004", "0.008", b],
        ["0", "0", "1", "0", "–", "–", "not shown"],
    ]
