"""Save the last answers, or the whole conversation, as a Markdown file."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from quantchat.app.widgets.column_header import what_runs
from quantchat.document.figures import thoughts
from quantchat.session.comparison import Comparison
from quantchat.session.conversation import Answer, Turn
from quantchat.text import neutralise


def save_answers(text: str, folder: Path | None) -> Path:
    """Save `text`, as `answers_as_markdown` returns it; return the new file. Raises UserError.

    `folder` None means the user's default folder.
    """
    from quantchat.snapshot import store

    stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    return store.save_file(folder, f"{stamp}-answers.md", text.encode(), what="the answers")


def save_chat(comparison: Comparison, folder: Path | None) -> Path:
    """Save the whole conversation as Markdown; return the path. Raises UserError."""
    from quantchat.snapshot import store

    text = chat_as_markdown(comparison)
    stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    return store.save_file(folder, f"{stamp}-chat.md", text.encode(), what="the chat")


def chat_as_markdown(comparison: Comparison) -> str:
    """Return the conversation as Markdown without control characters: a section for each turn."""
    parts = [f"# {comparison.profile.name}"]
    for label, what in _what_runs_by_label(comparison).items():
        parts.append(f"- {label}: {what}")
    if comparison.conversation.system:
        parts += ["## System prompt", comparison.conversation.system]
    for number, turn in enumerate(comparison.conversation.turns, start=1):
        parts += [f"## Turn {number}", _quoted(turn.prompt)]
        if turn.history_of:
            parts.append(f"*both continue the answers of {turn.history_of}*")
        for label, answer in turn.answers.items():
            parts += [f"### {label}", *_answer_parts(answer)]
    return neutralise("\n\n".join(part.strip("\n") for part in parts)) + "\n"


def answers_as_markdown(turn: Turn, comparison: Comparison) -> str:
    """Return prompt and answers as Markdown without control characters.

    Users print such files to a terminal, where control characters could do harm.
    """
    running = _what_runs_by_label(comparison)
    parts = ["# Prompt", turn.prompt]
    for label, answer in turn.answers.items():
        parts += [f"# {label}", *([f"*{running[label]}*"] if label in running else [])]
        parts += _answer_parts(answer)
    return neutralise("\n\n".join(part.strip("\n") for part in parts)) + "\n"


def _what_runs_by_label(comparison: Comparison) -> dict[str, str]:
    """Return, by label, what runs each loaded variant: kernel, dtype, device and more."""
    return {v.label: what_runs(v.model_info) for v in comparison.variants if v.model_info}


def _answer_parts(answer: Answer) -> list[str]:
    if not answer.thoughts:
        return [answer.text]
    title = f"*{thoughts(answer.thought_tokens)}:*"
    return [title, _quoted(answer.thoughts), "*answer:*", answer.text]


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}" for line in text.strip("\n").splitlines())
