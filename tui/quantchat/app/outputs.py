"""Answers as a Markdown file."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from quantchat.app.widgets.column_header import what_runs
from quantchat.document.figures import thoughts
from quantchat.session.comparison import Comparison
from quantchat.session.conversation import Turn
from quantchat.text import neutralise


def save_answers(text: str, folder: Path | None) -> Path:
    """Save `text`, as `answers_as_markdown` returns it; return the new file. Raises UserError.

    `folder` None means the user's default folder.
    """
    from quantchat.snapshot import store

    stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    return store.save_file(folder, f"{stamp}-answers.md", text.encode(), what="the answers")


def answers_as_markdown(turn: Turn, comparison: Comparison) -> str:
    """Return prompt and answers as Markdown without control characters.

    Users print such files to a terminal, where control characters could do harm.
    """
    running = {v.label: what_runs(v.resolved) for v in comparison.variants if v.resolved}
    parts = ["# Prompt", turn.prompt]
    for label, answer in turn.answers.items():
        parts += [f"# {label}", *([f"*{running[label]}*"] if label in running else [])]
        if answer.thoughts:
            parts += [
                f"*{thoughts(answer.thought_tokens)}:*",
                _quoted(answer.thoughts),
                "*answer:*",
            ]
        parts.append(answer.text)
    return neutralise("\n\n".join(part.strip("\n") for part in parts)) + "\n"


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}" for line in text.strip("\n").splitlines())
