"""Thoughts are separated from the answer, by marks in the text and by special tokens."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from quantchat.session.conversation import Answer, AnswerState, Conversation, divergence_point
from quantchat.wire.messages import Finished, Started, Tokens
from quantchat.wire.protocol import Event, decode_event
from quantchat.worker.outbox import Outbox
from quantchat.worker.thoughts import (
    CHANNEL,
    MESSAGE,
    PAIRS,
    START,
    Marks,
    OutputText,
    Splitter,
    server_splitter,
)

HARMONY = (
    "<|channel|>analysis<|message|>User asks capital.<|end|><|start|>assistant<|channel|>final"
    "<|message|>The capital is Paris."
)
TOLD = [
    (HARMONY, "The capital is Paris.", "User asks capital."),
    ("<|start|>assistant" + HARMONY, "The capital is Paris.", "User asks capital."),
    (
        "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary to=f"
        "<|message|>b<|end|><|start|>assistant<|channel|>final<|message|>c",
        "c",
        "a\n\nb",
    ),
    ("<|channel|>final<|message|>c", "c", ""),
    ("<|channel|>analysis<|message|>a", "", "a"),
    ("<|channel|>anal", "", ""),
    ("<think>\nHm.\n</think>\n\nParis.", "Paris.", "Hm.\n"),
    ("\n<think></think>Paris.", "Paris.", ""),
    ("<think>Hm.", "", "Hm."),
    ("<think>Hm.</thin", "", "Hm.</thin"),
    ("<thin", "<thin", ""),
    ("[THINK]User asks capital.[/THINK]The capital", "The capital", "User asks capital."),
    ("<|channel>thought\nHm.<channel|>Paris.", "Paris.", "Hm."),
    ("The tag <think> opens, </think> closes.", "The tag <think> opens, </think> closes.", ""),
    ("<think>a</think>b <think>c</think>", "b <think>c</think>", "a"),
    ("The token <|channel|> is harmony's.", "The token <|channel|> is harmony's.", ""),
    ("  indented", "  indented", ""),
    ("", "", ""),
]


def split(*pieces: str, opened: str = "") -> tuple[str, str]:
    splitter = Splitter(channels=True, closing_mark=opened)
    parts = [*(splitter.feed(one) for one in pieces), splitter.end()]
    return "".join(a for a, _ in parts), "".join(t for _, t in parts)


@pytest.mark.parametrize(("output", "answer", "thoughts"), TOLD)
def test_an_output_is_split_however_it_is_cut(output: str, answer: str, thoughts: str) -> None:
    assert split(output) == split(*output) == (answer, thoughts)
    for at in range(len(output)):
        assert split(output[:at], output[at:]) == (answer, thoughts)


def test_thoughts_that_the_prompt_began() -> None:
    assert split("Hm.\n", "</think>\n\nParis.", opened="</think>") == ("Paris.", "Hm.\n")


marks = (
    *PAIRS,
    *PAIRS.values(),
    CHANNEL,
    MESSAGE,
    START,
    "<|end|>",
    "analysis",
    "final",
    "\n",
    "a",
)


@given(st.lists(st.sampled_from(marks) | st.text(max_size=3)), st.data())
def test_any_output_is_split_alike_however_it_is_cut(
    pieces: list[str], data: st.DataObject
) -> None:
    output = "".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(output)), max_size=5)))
    cut = [output[a:b] for a, b in zip([0, *cuts], [*cuts, len(output)], strict=True)]
    assert split(*cut) == split(output)
    if not any(one in output for one in marks if len(one) > 4):
        assert split(output) == (output, "")


# ---------------------------------------------------------------- of tokens

SPECIAL = ("<|start|>", CHANNEL, MESSAGE, "<|end|>", "[THINK]", "[/THINK]", "<|im_end|>")


def tokenizer(*special: str, plain: tuple[str, ...] = ()) -> Tokenizer:
    """One token a byte, and the marks."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={c: n for n, c in enumerate(letters)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(one, special=True) for one in special])
    made.add_tokens([AddedToken(one, special=False, normalized=False) for one in plain])
    return made


def answered(
    made: Tokenizer,
    output: str,
    *,
    prompt: str = "",
    template: str = "",
    given: list[str] | None = None,
) -> list[Event]:
    """What the outbox says of an answer whose tokens are those of `output`."""
    read, write = os.pipe()
    with os.fdopen(read, "rb") as reader:
        outbox = Outbox(write)
        outbox.serve(made, None, template, given)  # type: ignore[arg-type]
        outbox.begin(1, made.encode(prompt).ids)
        for at, token in enumerate(made.encode(output).ids):
            outbox.token(token, at)
        outbox.end(1, "eos", 10**6)
        events: list[Event] = []
        while not (events and isinstance(events[-1], Finished)):
            events.append(decode_event(reader.readline()))
    os.close(write)
    return events


def grown(events: list[Event]) -> Answer:
    answer = Answer("one", "together")
    for event in (Started(1, 0, 3, 0), *events):
        answer.grow(event, from_server=False)
    return answer


@pytest.mark.parametrize(
    "output", [HARMONY, "[THINK]User asks capital.[/THINK]The capital is Paris."]
)
def test_marks_that_are_special_tokens(output: str) -> None:
    made = tokenizer(*SPECIAL)
    events = answered(made, output)
    answer, ids = grown(events), made.encode(output).ids
    assert (answer.text, answer.thoughts) == ("The capital is Paris.", "User asks capital.")
    assert answer.raw == output
    assert answer.ids == ids and answer.times_ns == list(range(len(ids)))
    assert len(answer.pieces) == len(answer.thought_pieces) == len(ids)
    assert "".join(answer.pieces) == answer.text
    assert "".join(answer.thought_pieces) == answer.thoughts
    assert answer.thought_tokens == len(ids) - len("The capital is Paris.")


def test_marks_that_are_plain_tokens_and_a_prompt_that_opens_the_thoughts() -> None:
    made = tokenizer("<|im_end|>", plain=("<think>", "</think>"))
    answer = grown(answered(made, "<think>\nHm.\n</think>\n\nParis."))
    assert (answer.text, answer.thoughts) == ("Paris.", "Hm.")
    answer = grown(answered(made, "Hm.\n</think>\n\nParis.", prompt="x<|im_end|><think>\n"))
    assert (answer.text, answer.thoughts) == ("Paris.", "Hm.")
    assert answer.thought_tokens == len("Hm.\n") + 1
    answer = grown(answered(made, "Paris.", prompt="<think>\n\n</think>\n\n"))
    assert (answer.text, answer.thoughts, answer.thought_tokens) == ("Paris.", "", 0)


def test_marks_that_the_template_alone_knows() -> None:
    template = "{% set answer = content.split('</think>')[-1] %}<think>"
    output = "<think>Hm.</think>Paris."
    assert grown(answered(tokenizer(), output, template=template)).text == "Paris."
    assert grown(answered(tokenizer(), output)).text == output


def test_marks_that_the_profile_names() -> None:
    answer = grown(answered(tokenizer(), "(hm)a?(so)b.", given=["(hm)", "(so)"]))
    assert (answer.text, answer.thoughts) == ("b.", "a?")
    answer = grown(answered(tokenizer(), "a?(so)b.", given=["", "(so)"]))
    assert (answer.text, answer.thoughts) == ("b.", "a?")


@pytest.mark.parametrize(
    ("given", "output"),
    [
        (None, HARMONY),
        (None, "<think>User asks capital.</think>The capital is Paris."),
        (["", "</t>"], "User asks capital.</t>The capital is Paris."),
    ],
)
def test_marks_in_the_text_of_a_server(given: list[str] | None, output: str) -> None:
    splitter = server_splitter(given)
    parts = [*map(splitter.feed, output), splitter.end()]
    assert "".join(answer for answer, _ in parts) == "The capital is Paris."
    assert "".join(thought for _, thought in parts) == "User asks capital."


def test_the_first_token_of_the_answer_has_its_time() -> None:
    answer = grown(answered(tokenizer(*SPECIAL), "[THINK]Hm.[/THINK]Paris."))
    assert answer.first_answer_token == len(["[THINK]", *"Hm.", "[/THINK]"])
    answer.received_ns = 1
    assert answer.timing().ttfa_ms == (answer.times_ns[5] - 1) / 1e6
    answer = grown(answered(tokenizer(*SPECIAL), "[THINK]Hm."))
    assert answer.timing().ttfa_ms is None
    answer = grown(answered(tokenizer(*SPECIAL), "Paris."))
    assert answer.timing().ttfa_ms == answer.timing().ttft_ms


def test_without_marks_nothing_changes() -> None:
    made = tokenizer("<|im_end|>", "<|end|>")
    answer = grown(answered(made, "a <|im_end|><|end|><|channel|> b"))
    assert (answer.text, answer.raw, answer.thoughts) == ("a <|channel|> b", "", "")
    assert answer.thought_pieces == [] and answer.thought_tokens == 0


def test_what_is_whole_is_what_was_streamed() -> None:
    made = tokenizer(*SPECIAL)
    ids = made.encode(HARMONY).ids
    output = OutputText(Marks(made), [])
    pieces = [output.add(one, made.decode([one], skip_special_tokens=True)) for one in ids]
    text, thoughts, raw = output.whole(ids)
    assert ("".join(a for a, _ in pieces), "".join(t for _, t in pieces)) == (text, thoughts)
    assert raw == HARMONY


# ---------------------------------------------------------------- of a conversation


def test_the_next_turn_is_sent_the_answer_alone() -> None:
    conversation = Conversation()
    answer = grown(answered(tokenizer(*SPECIAL), HARMONY))
    conversation.begin("Capital?", [answer])
    turn = conversation.begin("Sure?", [Answer("one", "together")])
    said = [message.content for message in conversation.messages_for("one", turn)]
    assert said == ["Capital?", "The capital is Paris.", "Sure?"]


def test_an_answer_that_is_thoughts_alone_is_not_sent() -> None:
    conversation = Conversation()
    conversation.begin("Capital?", [grown(answered(tokenizer(*SPECIAL), "[THINK]Hm."))])
    turn = conversation.begin("Sure?", [Answer("one", "together")])
    assert [m.content for m in conversation.messages_for("one", turn)] == ["Sure?"]


def test_divergence_is_by_token_and_known_to_lie_in_the_thoughts() -> None:
    made = tokenizer(*SPECIAL)
    first = grown(answered(made, "[THINK]ab[/THINK]c"))
    second = grown(answered(made, "[THINK]ax[/THINK]c"))
    assert divergence_point(first, second) == 2
    assert first.thinks_at(2) and not first.thinks_at(4)
    assert first.output_pieces == ["", "a", "b", "", "c"]


def test_thoughts_that_begin_in_a_later_batch_keep_their_places() -> None:
    answer = Answer("one", "together", state=AnswerState.PREFILL)
    answer.grow(Tokens(1, [1], [""], [1]), from_server=False)
    answer.grow(Tokens(1, [2, 3], ["", "b"], [2, 3], ["a", ""]), from_server=False)
    answer.grow(Tokens(1, [4], ["c"], [4]), from_server=False)
    assert answer.thought_pieces == ["", "a", "", ""]
