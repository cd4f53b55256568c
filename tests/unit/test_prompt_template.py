"""A chat as the model's own template puts it, and what a variant may say to that template."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fakes.tiny_folder import tokenizer
from quantchat.bench.requests import load_request
from quantchat.profile.load import loads
from quantchat.quantize.maker import Prepared
from quantchat.worker.decode.prompt import encode_prompt
from quantchat.worker.protocol import Load, Message

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
    command: Load = load_request(spec, Prepared("org/one"))
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
