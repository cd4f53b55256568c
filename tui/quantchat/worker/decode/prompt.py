"""From a chat to token ids, by the model's own template."""

from __future__ import annotations

from collections.abc import Sequence

from quantchat.wire.messages import Message
from quantchat.worker.model.chat_template import render
from quantchat.worker.model.loaded import Loaded


def encode_prompt(loaded: Loaded, messages: Sequence[Message]) -> list[int]:
    """Return the ids of `messages` in the model's chat template, ready for an answer.

    A base model without a template gets the texts one after the other, as plain completion; its
    system prompt, if any, simply comes first.
    """
    if not loaded.chat_template:
        text = "\n".join(message.content for message in messages)
        return list(loaded.tokenizer_backend.encode(text).ids)
    variables = loaded.command.options.get("chat_template_kwargs", {})
    text = render(loaded.tokenizer, messages, variables)
    # The template writes the special tokens itself.
    return list(loaded.tokenizer_backend.encode(text, add_special_tokens=False).ids)
