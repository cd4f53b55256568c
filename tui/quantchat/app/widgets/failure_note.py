"""Why a variant failed, and what to do."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static

from quantchat.app.commands import command
from quantchat.app.widgets.text_layout import outside, quiet
from quantchat.document import figures
from quantchat.wire.messages import Failed

TITLES = {
    "out_of_memory": "Out of memory",
    "device_busy": "The GPU is taken",
    "device_failed": "The GPU failed",
    "gpu_unusable": "The GPU cannot be used",
    "no_kernel_image": "Not built for this GPU",
    "context_full": "The context is full",
    "bad_checkpoint": "Not a checkpoint this engine can load",
    "missing_library": "A library is missing",
    "bad_calibration": "Not a text to calibrate on",
    "cannot_start": "Cannot start",
    "fetch_failed": "Could not be fetched",
    "no_space": "No space left",
    "environment": "Something around the model is wrong",
    "cannot_write": "Cannot be written",
    "unsupported": "Not supported here",
    "not_responding": "The worker does not respond",
    "server_unreachable": "No server there",
    "server_ended": "The server ended",
    "server_silent": "The server does not answer",
    "server_denied": "The server wants a key",
    "server_refused": "The server refused",
    "server_busy": "The server is busy",
    "stream_cut": "The stream was cut",
    "worker_ended": "The worker is gone",
    "internal": "Something went wrong inside",
}


def title_of(failure: Failed) -> str:
    """A few words for the kind of failure."""
    return TITLES.get(failure.kind, "Failed")


def explained(failure: Failed) -> list[Content]:
    """The reason, the sizes where they are known, what to try: a line each."""
    lines = [outside(failure.reason)]
    if failure.needed >= 0 or failure.free >= 0:
        needed, free = figures.size(failure.needed), figures.size(failure.free)
        lines.append(Content(f"needed {needed}, free {free}"))
    if failure.hint:
        lines.append(quiet("try: ") + outside(failure.hint))
    return lines


class FailureNote(Static):
    """Shown below the stages while the variant has failed, or does not respond."""

    DEFAULT_CSS = """
    FailureNote {
        display: none; height: auto; margin: 0 1 1 1; padding: 0 1;
        border-left: outer $error; background: $error 12%;
    }
    FailureNote.-shown { display: block; }
    """

    def show(self, failure: Failed | None) -> None:
        """Explain `failure`; None hides the note."""
        self.set_class(failure is not None, "-shown")
        if failure is None:
            return
        keys = (
            f"{command('retry').key} loads it again · {command('log').key} shows the worker's log"
        )
        title = Content.styled(title_of(failure), "bold $error")
        self.update(Content("\n").join([title, *explained(failure), quiet(keys)]))
