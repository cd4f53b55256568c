"""From a chat to token ids, by the model's own template."""

from __future__ import annotations

from collections.abc import Sequence

from quantchat.worker.engines.loaded import Loaded
from quantchat.worker.protocol import Message


def encode_prompt(loaded: Loaded, messages: Sequence[Message]) -> list[int]:
    """Return the ids of `messages` in the model's chat template, ready for an answer.

    A base model without a template gets the texts one after the other, as plain completion; its
    system prompt, if any, simply comes first.
    """
    if not loaded.chat_template:
        text = "\n".join(message.content for message in messages)
        return list(loaded.tokenizer_backend.encode(text).ids)
    text = _render(loaded, list(messages))
    # The template writes the special tokens itself.
    return list(loaded.tokenizer_backend.encode(text, add_special_tokens=False).ids)


def _render(loaded: Loaded, messages: list[Message]) -> str:
    from jinja2 import TemplateError

    def render(chat: Sequence[Message]) -> str:
        return str(
            loaded.tokenizer.apply_chat_template(
                [{"role": message.role, "content": message.content} for message in chat],
                tokenize=False,
                add_generation_prompt=True,
                **loaded.command.options.get("chat_template_kwargs", {}),
            )
        )

    try:
        return render(messages)
    except TemplateError:
        # Some templates (Gemma's, Mistral's first) know no system role and refuse it.
        if len(messages) < 2 or messages[0].role != "system":
            raise
        system, first, *rest = messages
        return render([Message("user", f"{system.content}\n\n{first.content}"), *rest])
