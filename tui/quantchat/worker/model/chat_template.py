"""Render a model's chat template (Jinja), and check it once while the model is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from quantchat.wire.messages import Message
from quantchat.worker.failures import Refused, on_one_line
from quantchat.worker.text_bounds import bounded

_PROBE = "quantchat probe 7"
"""A question for the check. If the rendered text contains it, the template uses the messages."""
_IN_PARTS = "_quantchat_content_in_parts"
"""Attribute of a tokenizer whose template expects the content of a message as a list of parts."""


class WithChatTemplate:
    """A model whose tokenizer may have a chat template."""

    tokenizer: Any

    @property
    def chat_template(self) -> bool:
        """Whether the model has a chat template; without one it only continues text."""
        return bool(getattr(self.tokenizer, "chat_template", None))

    @property
    def template_text(self) -> str:
        """The chat template, in Jinja; empty if there is none or several."""
        template = getattr(self.tokenizer, "chat_template", None)
        return template if isinstance(template, str) else ""


def check_template(tokenizer: Any, variables: Mapping[str, Any]) -> None:
    """Render a short chat, and find out whether the template expects a message's content in parts.

    The result is stored in `tokenizer` (`_IN_PARTS`). Templates of vision models loop over the
    parts of a message: from a plain string they would render single letters, or nothing.
    `variables` are variables of the template. Raises Refused if rendering fails or does not end.
    """
    if tokenizer.chat_template:
        with bounded("trying the chat template"):
            _try(tokenizer, variables)


def _try(tokenizer: Any, variables: Mapping[str, Any]) -> None:
    try:
        for in_parts in (False, True):
            setattr(tokenizer, _IN_PARTS, in_parts)
            if _PROBE in render(tokenizer, [Message("user", _PROBE)], variables):
                return
    except Exception as error:  # Jinja and the functions that a template calls raise anything
        if in_parts:  # a string as content was rendered before, but without the question
            raise _refusal(_NO_QUESTION, _HINT) from error
        raise _cannot_render(tokenizer, error) from error
    raise _refusal(_NO_QUESTION, _HINT)


def render(tokenizer: Any, messages: Sequence[Message], variables: Mapping[str, Any]) -> str:
    """Return `messages` as text, rendered with the chat template, up to the start of the answer.

    `variables` are variables of the template. Thoughts of earlier answers are passed to the
    template, though nearly all templates leave them out. If the template refuses a system message
    (Gemma, early Mistral), the text of this message is put before the first question. Exceptions
    of the template and of the tokenizer are not caught.
    """
    from jinja2 import TemplateError

    def once(chat: Sequence[Message]) -> str:
        form = with_content_form(tokenizer, [_as_dict(message) for message in chat])
        return str(
            tokenizer.apply_chat_template(
                form, tokenize=False, add_generation_prompt=True, **variables
            )
        )

    try:
        return once(messages)
    except TemplateError:
        if len(messages) < 2 or messages[0].role != "system":
            raise
        system, first, *rest = messages
        return once([Message("user", f"{system.content}\n\n{first.content}"), *rest])


def _as_dict(message: Message) -> dict[str, str]:
    found = {"role": message.role, "content": message.content}
    if message.thoughts:  # Qwen3, GLM, MiniMax read the first key, gpt-oss the second
        found |= {"reasoning_content": message.thoughts, "thinking": message.thoughts}
    return found


def with_content_form(
    tokenizer: Any, chat: Sequence[Mapping[str, object]]
) -> Sequence[Mapping[str, object]]:
    """Return `chat`, with each message's content in the form that the template expects."""
    if not getattr(tokenizer, _IN_PARTS, False):
        return chat
    return [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in chat]


_NO_QUESTION = "the chat template leaves out the user's messages"
_HINT = 'name another model\'s tokenizer and template: tokenizer = "org/name"'


def _cannot_render(tokenizer: Any, error: Exception) -> Refused:
    if isinstance(tokenizer.chat_template, dict) and "default" not in tokenizer.chat_template:
        names = sorted(tokenizer.chat_template)
        return _refusal(
            f"it has several chat templates, and none is the default: {', '.join(names)}",
            f'name one: chat_template_kwargs = {{ chat_template = "{names[0]}" }}',
        )
    why = on_one_line(f"{type(error).__name__}: {error}")
    return _refusal(f"the chat template cannot be rendered: {why}", _HINT)


def _refusal(what: str, hint: str) -> Refused:
    return Refused("bad_checkpoint", what, hint)
