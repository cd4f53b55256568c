"""What is made of a server's answers: counts, times, ends, thoughts. In this process, over HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from fakes.raw_server import Asked, raw_server
from fakes.served_decoder import after_warm_up, ask, decoder, refused
from quantchat.wire.messages import Drafted, Finished

pytest.importorskip("openai")


# ---------------------------------------------------------------- counts, times, ends


def streams(*chunks: tuple[str, str | None, int | None]) -> Callable[[Asked], None]:
    """Streams chunks of text, reason and the tokens that are counted so far."""

    def answers(asked: Asked) -> None:
        asked.begin()
        for text, reason, count in chunks:
            counted = {"prompt_tokens": 3, "completion_tokens": count}
            asked.say(text, reason, **({} if count is None else {"usage": counted}))
        asked.write(b"data: [DONE]\n\n")

    return after_warm_up(answers)


ARRIVALS: list[tuple[list[tuple[str, str | None, int | None]], int]] = [
    # The first count comes with the end: that chunk is no token.
    ([("a", None, None), ("b", None, None), ("", "length", 2)], 2),
    ([("a", None, 0), ("b", None, 0), ("", "length", 2)], 2),
    ([("", None, 0), ("a", None, None), ("b", None, None), ("", "length", 2)], 2),
    # A server that counts as it goes: the last token has no text.
    ([("a", None, 1), ("b", None, 2), ("", "length", 3)], 3),
    ([("a", None, 1), ("", None, 2), ("b", None, 3), ("", "length", 3)], 3),
    # A token of the end is no arrival.
    ([("a", None, 1), ("b", None, 2), ("", "stop", 3)], 2),
]


@pytest.mark.parametrize(("chunks", "arrivals"), ARRIVALS)
def test_only_a_token_has_a_time(
    chunks: list[tuple[str, str | None, int | None]],
    arrivals: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter(range(0, 10**9, 10))
    with raw_server(streams(*chunks)) as server:
        made = decoder(server)
        made.connect()
        monkeypatch.setattr("time.perf_counter_ns", lambda: next(clock))
        outbox = ask(made)
    times = [one.times_ns[0] for one in outbox.tokens]
    # The clock is read once for each record; those that are tokens keep their own reading.
    places = [at for at, (text, _, _) in enumerate(chunks) if text]
    assert len(times) == outbox.finished.chunks == arrivals
    assert {10 * at for at in places} <= set(times)


LLAMA_CPP = {"timings": {"predicted_n": 12, "draft_n": 10, "draft_n_accepted": 8}}
VLLM = {
    "metrics": {
        "speculative_decoding": {
            "mean_acceptance_length": 3.0, "draft_acceptance_rate": 0.8, "num_spec_tokens": 3,
            "num_draft_tokens": 10, "num_accepted_draft_tokens": 8, "num_spec_steps": 4,
        }
    }
}  # fmt: skip


SGLANG = {
    "sglext": {
        "spec_tokens_details": {
            "spec_accept_rate": 0.8, "spec_accept_length": 3.0, "spec_num_correct_drafts": 8,
            "spec_num_proposed_drafts": 10, "spec_verify_ct": 4,
        }
    }
}  # fmt: skip


@pytest.mark.parametrize(
    ("last", "drafts"),
    [
        (LLAMA_CPP, (10, 8, 4)),
        (VLLM, (10, 8, 4)),
        (SGLANG, (10, 8, 4)),
        ({}, None),
        ({"timings": {"predicted_n": 12, "prompt_n": 3}}, None),  # llama.cpp without a draft
        ({"metrics": {"speculative_decoding": None}, "timings": []}, None),
        ({"timings": {"predicted_n": 12, "draft_n": 3, "draft_n_accepted": 8}}, None),
        ({"timings": {"predicted_n": "12", "draft_n": 1.5, "draft_n_accepted": True}}, None),
    ],
)
def test_the_drafts_that_a_server_reports(
    last: dict[str, Any], drafts: tuple[int, int, int] | None
) -> None:
    """They come with the last chunk, before or after the reason for the end."""

    def answers(asked: Asked) -> None:
        asked.begin()
        asked.say("Paris.")
        asked.say(reason="stop", **(last if "timings" in last else {}))
        chunk = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 12}, **last}
        asked.write(b"data: " + json.dumps(chunk).encode() + b"\n\ndata: [DONE]\n\n")

    with raw_server(after_warm_up(answers)) as server:
        made = decoder(server)
        made.connect()
        sent = ask(made).sent
    found = [one for one in sent if isinstance(one, Drafted)]
    assert found == ([Drafted(1, *drafts)] if drafts else [])
    assert isinstance(sent[-1], Finished)


def test_an_answer_whose_count_is_cut_off_is_whole() -> None:
    def answers(asked: Asked) -> None:
        asked.write(b"HTTP/1.1 200 X\r\nContent-Length: 99999\r\n\r\n")
        asked.say("Paris.")
        asked.say(reason="stop")

    with raw_server(after_warm_up(answers)) as server:
        made = decoder(server)
        made.connect()
        end = ask(made).finished
    assert (end.text, end.reason, end.output_tokens) == ("Paris.", "eos", -1)


def test_thoughts_are_sent_apart_and_counted() -> None:
    def answers(asked: Asked) -> None:
        asked.begin()
        for name in ("reasoning_content", "content"):
            chunk = {"choices": [{"index": 0, "delta": {name: f"a {name}"}}]}
            asked.write(f"data: {json.dumps(chunk)}\n\n".encode())
        details = {"reasoning_tokens": 4}
        counted = {"prompt_tokens": 3, "completion_tokens": 9, "completion_tokens_details": details}
        asked.say(reason="stop", usage=counted)

    with raw_server(after_warm_up(answers)) as server:
        made = decoder(server)
        made.connect()
        outbox = ask(made)
    end = outbox.finished
    assert (end.text, end.thoughts, end.thought_tokens) == ("a content", "a reasoning_content", 4)
    assert [(one.pieces, one.thoughts) for one in outbox.tokens] == [
        ([""], ["a reasoning_content"]),
        (["a content"], []),
    ]


def test_thoughts_in_the_text_are_known_by_their_marks() -> None:
    with raw_server(lambda asked: asked.answer("<thi", "nk>Hm.</think>", "\n\nParis.")) as server:
        made = decoder(server)
        made.connect()
        end = ask(made).finished
    assert (end.text, end.thoughts, end.thought_tokens) == ("Paris.", "Hm.", -1)


@pytest.mark.parametrize(
    ("said", "text", "thoughts"),
    [
        ("Hm.\n</think>\n\nParis.", "Paris.", "Hm."),
        ("Hm.[/THINK]\nParis.", "Paris.", "Hm."),
        ("Hm.\n</think>", "", "Hm."),
        ("The tag `</think>` closes.", "The tag `</think>` closes.", ""),
    ],
)
def test_thoughts_that_the_prompt_of_a_server_has_opened(
    said: str, text: str, thoughts: str
) -> None:
    with raw_server(lambda asked: asked.answer(*said)) as server:
        made = decoder(server)
        made.connect()
        end = ask(made).finished
    assert (end.text, end.thoughts, end.thought_tokens) == (text, thoughts, -bool(thoughts))


def test_an_answer_that_is_not_streamed_is_taken_and_reported() -> None:
    message = {"role": "assistant", "content": "Paris."}
    body = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    with raw_server(lambda asked: asked.json(body)) as server:
        made = decoder(server)
        made.connect()
        assert "does not stream" in made.note
        assert ask(made).finished.text == "Paris."


# ---------------------------------------------------------------- a server that still loads


def test_a_server_that_still_loads_is_waited_for_where_it_is_ours() -> None:
    left = [3]

    def answers(asked: Asked) -> None:
        left[0] -= 1
        if left[0] >= 0:
            asked.json({"error": {"message": "Loading model", "code": 503}}, status=503)
        else:
            asked.answer()

    with raw_server(answers) as server:
        waited: list[str] = []
        made = decoder(server)
        made.connect(waited.append)
        assert len(waited) == 3 and "Loading model" in waited[0]
        left[0] = 1
        kind, reason = refused(decoder(server).connect)
        assert kind == "server_refused" and "503: Loading model" in reason
