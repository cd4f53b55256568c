"""Which messages each variant gets, and where two answers diverge."""

from __future__ import annotations

from quantchat.session.conversation import Answer, AnswerState, Conversation, divergence_point
from quantchat.wire.messages import Message


def said(variant: str, text: str = "", ids: list[int] | None = None, over: bool = True) -> Answer:
    state = AnswerState.DONE if over else AnswerState.STREAMING
    return Answer(variant, "together", state=state, text=text, ids=ids or [])


def test_each_variant_sees_its_own_words_only() -> None:
    chat = Conversation(system="Be brief.")
    chat.begin("one", [said("A", "a1"), said("B", "b1")])
    chat.begin("two", [said("A", "a2")])  # B was not ready
    last = chat.begin("three", [said("A"), said("B")])
    assert chat.messages_for("B", last) == [
        Message("system", "Be brief."),
        Message("user", "one"),
        Message("assistant", "b1"),
        Message("user", "three"),
    ]
    assert [m.content for m in chat.messages_for("A", last)] == [
        "Be brief.", "one", "a1", "two", "a2", "three",
    ]  # fmt: skip


def test_without_system_prompt_none_is_sent() -> None:
    chat = Conversation()
    turn = chat.begin("hi", [said("A")])
    assert chat.messages_for("A", turn) == [Message("user", "hi")]


def test_turn_numbers_are_never_used_twice() -> None:
    # A late event of a turn that was taken away must not be taken for the new one's.
    chat = Conversation()
    first = chat.begin("one", [])
    chat.drop_last()
    assert chat.begin("one", []).number > first.number


def test_dropping() -> None:
    chat = Conversation()
    assert chat.drop_last() is None
    assert chat.drop_oldest() is None
    turns = [chat.begin(prompt, []) for prompt in ("a", "b", "c")]
    assert chat.drop_oldest() is turns[0]
    assert chat.drop_last() is turns[2]
    assert chat.turns == [turns[1]]


def test_divergence() -> None:
    assert divergence_point(said("A", ids=[1, 2, 3]), said("B", ids=[1, 9, 3])) == 1
    assert divergence_point(said("A", ids=[1, 2]), said("B", ids=[1, 2])) is None
    assert divergence_point(said("A"), said("B")) is None
    assert divergence_point(said("A", ids=[9, 2, 3]), said("B", ids=[1, 2, 4]), same=2) == 2


def test_a_shorter_answer_parts_where_it_ends_but_only_once_it_is_over() -> None:
    short, long = said("A", ids=[1, 2]), said("B", ids=[1, 2, 3])
    assert divergence_point(short, long) == 2
    assert divergence_point(long, short) == 2
    assert divergence_point(said("A", ids=[1, 2], over=False), long) is None
