"""The note that says why a variant failed and what to do."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static

from quantchat.app.commands import command
from quantchat.app.widgets.text_layout import quiet, untrusted
from quantchat.document import figures
from quantchat.wire.messages import Failed

TITLES = {
    "out_of_memory": "Out of memory",
    "device_busy": "The GPU is in use by another process",
    "device_failed": "The GPU failed",
    "gpu_unusable": "The GPU cannot be used",
    "no_kernel_image": "The library is not built for this GPU",
    "context_full": "The context is full",
    "bad_checkpoint": "This engine cannot load the checkpoint",
    "missing_library": "A library is missing",
    "bad_calibration": "The calibration text cannot be used",
    "bad_task": "A task cannot be run",
    "cannot_start": "The worker cannot start",
    "fetch_failed": "The download failed",
    "no_space": "The disk is full",
    "environment": "The environment is not set up correctly",
    "cannot_write": "A file cannot be written",
    "unsupported": "Not supported on this machine",
    "not_responding": "The worker does not respond",
    "server_unreachable": "The server cannot be reached",
    "server_ended": "The server ended",
    "server_silent": "The server does not answer",
    "server_denied": "The server requires an API key",
    "server_refused": "The server refused the request",
    "server_busy": "The server is busy",
    "stream_cut": "The connection to the server broke",
    "worker_ended": "The worker ended unexpectedly",
    "internal": "Internal error in quantchat",
}
"""Kind of a failure → its title."""


def title_of(failure: Failed) -> str:
    """Return a short title for the kind of failure."""
    return TITLES.get(failure.kind, "Failed")


def explanation(failure: Failed) -> list[Content]:
    """Return the reason, the memory sizes if known, and the hint, one line each."""
    lines = [untrusted(failure.reason)]
    if failure.needed >= 0 or failure.free >= 0:
        needed, free = figures.size(failure.needed), figures.size(failure.free)
        lines.append(Content(f"needed {needed}, free {free}"))
    if failure.hint:
        lines.append(quiet("try: ") + untrusted(failure.hint))
    return lines


class FailureNote(Static):
    """Shown below the list of loading stages while the variant has failed or does not respond."""

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
        keys = f"{command('reload').key} reloads it · {command('log').key} shows the worker's log"
        title = Content.styled(title_of(failure), "bold $error")
        self.update(Content("\n").join([title, *explanation(failure), quiet(keys)]))
