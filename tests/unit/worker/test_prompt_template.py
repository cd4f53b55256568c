"""A chat in the model's own template, and the variables that a variant passes to it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fakes.tiny_folder import tiny_folder, tokenizer
from quantchat.checkpoints.provider import PreparedModel
from quantchat.profile.load import loads
from quantchat.session.requests import load_request
from quantchat.wire.messages import LoadModel, Message
from quantchat.worker.decode.loop_decoder import encode_prompt
from quantchat.worker.failures import Refused
from quantchat.worker.model.chat_template import check_template, render
from quantchat.worker.model.tokenizer import load_tokenizer

THINKS = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if enable_thinking is not defined or enable_thinking %}think {{ depth }}{% endif %}"
)
PROFILE = """
name = "p"
[[variants]]
label = "one"
engine = "transformers"
model = "org/one"
{more}
[[variants]]
label = "two"
engine = "transformers"
model = "org/one"
"""


def prompt(template: str, more: str = "", *messages: Message) -> str:
    """The text that a variant's prompt is made of."""
    spec = loads(PROFILE.format(more=more), where="p.toml", folder=Path()).variants[0]
    command: LoadModel = load_request(spec, PreparedModel("org/one"))
    made: Any = tokenizer()
    made.chat_template = template
    loaded: Any = SimpleNamespace(
        command=command,
        tokenizer=made,
        tokenizer_backend=made.backend_tokenizer,
        chat_template=bool(template),
    )
    ids = encode_prompt(loaded, messages or [Message("user", "Why?")])
    return "".join(made.convert_ids_to_tokens(ids))


@pytest.mark.parametrize(
    ("more", "end"),
    [
        ("", "think "),
        ("chat_template_kwargs = { enable_thinking = false }", ""),
        ("chat_template_kwargs = { enable_thinking = true, depth = 3 }", "think 3"),
        ('chat_template_kwargs = { depth = "far" }', "think far"),
    ],
)
def test_a_variant_speaks_to_its_template(more: str, end: str) -> None:
    assert prompt(THINKS, more) == f"user: Why?\n{end}"


def test_a_template_without_a_system_role_gets_it_with_the_first_words() -> None:
    refuses = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        + THINKS
    )
    chat = [Message("system", "Be short."), Message("user", "Why?")]
    assert prompt(refuses, "", *chat).startswith("user: Be short.\n\nWhy?\n")


def test_without_a_template_the_texts_follow_each_other() -> None:
    chat = [Message("system", "Be short."), Message("user", "Why?")]
    assert prompt("", "", *chat) == "Be short.\nWhy?"


# ------------------------------------------------------------ looked over while it is loaded


def checked(template: Any, **variables: Any) -> Any:
    made: Any = tokenizer()
    made.chat_template = template
    check_template(made, variables)
    return made


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ({"rag": THINKS, "tool_use": THINKS}, "several chat templates, and none is the default"),
        ("{{ messages | nosuchfilter }}", "nosuchfilter"),
        ("{% for m in messages %}{{ m.content }}", "cannot be rendered"),  # never ended
        ("{{ messages[7].content.x.y }}", "cannot be rendered"),
        ("{{ raise_exception('not today') }}", "not today"),
        ("{{ 1 // 0 }}", "ZeroDivisionError"),
        ("always the same", "leaves out the user's messages"),
    ],
)
def test_a_template_that_renders_no_question_is_refused_while_loading(
    template: Any, says: str
) -> None:
    with pytest.raises(Refused, match=says) as told:
        checked(template)
    failure = told.value.failure
    assert failure.kind == "bad_checkpoint" and "\n" not in failure.reason
    assert "chat_template" in failure.hint or "tokenizer" in failure.hint


def test_one_of_several_templates_can_be_named() -> None:
    assert checked({"rag": THINKS, "tool_use": "x"}, chat_template="rag")
    assert checked({"default": THINKS, "rag": "x"})


PARTS = (
    "{% for m in messages %}{{ m.role }}:{% for part in m.content %}"
    "{% if part.type == 'text' %} {{ part.text }}{% endif %}{% endfor %}\n{% endfor %}"
)


def test_a_template_that_wants_parts_gets_them() -> None:
    made = checked(PARTS)
    assert render(made, [Message("user", "Why?")], {}) == "user: Why?"
    strict = "{{ messages[0]['content'][0]['text'] }}"
    assert render(checked(strict), [Message("user", "Why?")], {}) == "Why?"
    assert render(checked(THINKS), [Message("user", "Why?")], {}).startswith("user: Why?")


def test_the_template_decides_what_becomes_of_earlier_thoughts() -> None:
    chat = [Message("user", "Why?"), Message("assistant", "So.", "Hm."), Message("user", "And?")]
    keeps = (
        "{% for m in messages %}{% if m.reasoning_content %}({{ m.reasoning_content }}){% endif %}"
        "{{ m.content }} {% endfor %}"
    )
    assert render(checked(keeps), chat, {}).strip() == "Why? (Hm.)So. And?"
    assert "Hm." not in render(checked(THINKS), chat, {})


def test_without_a_template_there_is_nothing_to_look_over() -> None:
    assert checked(None).chat_template is None


def test_a_template_kept_for_the_processor_is_the_models(tmp_path: Path) -> None:
    tiny_folder(tmp_path)
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": PARTS}))
    made = load_tokenizer(LoadModel("transformers", str(tmp_path), {}))
    assert render(made, [Message("user", "Why?")], {}) == "user: Why?"
