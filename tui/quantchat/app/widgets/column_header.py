"""The head of a column: the variant's label and state, and what actually runs."""

from __future__ import annotations

from textual.content import Content
from textual.widget import Widget

from quantchat.app.widgets.text_layout import join_fitting, quiet, spread, untrusted
from quantchat.session.live_variant import LiveVariant, State
from quantchat.wire.variant import ANY_SERVER, ModelInfo

BADGES = {
    State.IDLE: ("○ not loaded", "$quiet"),
    State.PREPARING: ("◌ preparing", "$warning"),
    State.LOADING: ("◌ loading", "$warning"),
    State.READY: ("● ready", "$success"),
    State.ANSWERING: ("▶ answering", "$success"),
    State.FAILED: ("✖ failed", "bold $error"),
}
"""State of a variant → its text, and the text's style."""
_SILENT = ("✖ no response", "bold $error")

_DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


class ColumnHeader(Widget):
    """Two lines about a variant; each refresh reads the variant again."""

    DEFAULT_CSS = """
    ColumnHeader { height: 2; padding: 0 1; background: $surface; text-wrap: nowrap; }
    """

    def __init__(self, variant: LiveVariant) -> None:
        super().__init__()
        self._variant = variant
        self.side = "$side-left"
        """Colour of the column's side."""
        self.silent = False
        """Whether the worker seems to hang."""
        self.more_below = False
        """Whether the column is scrolled up, so that new text is out of sight."""

    def render(self) -> Content:
        """Return two lines: label and state; what runs."""
        variant, width = self._variant, self.size.width
        badge, style = _SILENT if self.silent else BADGES[variant.state]
        right = Content.styled(badge, style)
        if self.more_below:
            right = Content.styled("↓ more ^G  ", "$warning") + right
        first = spread(untrusted(variant.label, f"bold {self.side}"), right, width)
        warned = Content.styled(
            "".join(f"⚠ {unsafe_option} " for unsafe_option in variant.spec.unsafe_options),
            "bold $error",
        )
        runs = self._what_runs(max(0, width - warned.cell_length))
        second = (warned + runs).truncate(width, ellipsis=True)
        return Content("\n").join([first, second])

    def _what_runs(self, width: int) -> Content:
        model_info = self._variant.model_info
        if model_info is None:
            spec = self._variant.spec
            return quiet("to load: ") + untrusted(f"{spec.engine} · {spec.model}", "$quiet")
        # Dtype and device, or the name of a server, are always shown. A detail that does not fit is
        # left out; a long name of a kernel is cut.
        dtype = _DTYPES.get(model_info.dtype, model_info.dtype)
        where = (
            model_info.device_name if _is_server(model_info) else f"{dtype} · {model_info.where}"
        )
        right = untrusted(where, "$quiet")
        parts = (untrusted(part, "$quiet") for part in (_kernel(model_info), *_details(model_info)))
        return spread(join_fitting(parts, width - right.cell_length - 1, " · "), right, width)


def what_runs(info: ModelInfo) -> str:
    """Return what actually runs as one line: kernel, dtype, device, context, attention, mode.

    If the format of the weights is not the one that the label promises, the line begins with it,
    such as "dequantized to bf16".
    """
    where = [info.device_name] if _is_server(info) else [info.dtype, info.where]
    return " · ".join([_kernel(info), *where, *_details(info)])


def _kernel(info: ModelInfo) -> str:
    kernel = f"SLOW KERNEL {info.kernel}" if info.slow_kernel else info.kernel
    return " · ".join(filter(None, (info.format_deviation, kernel)))


def _is_server(info: ModelInfo) -> bool:
    """Whether a server runs the variant; servers report neither dtype nor device."""
    return info.device in ANY_SERVER


def _details(info: ModelInfo) -> list[str]:
    parts = [
        f"context {info.context_length}" if info.context_length > 0 else "",
        "" if _is_server(info) else info.attention_used,
        info.decoding.removeprefix("server, "),  # the kernel's name says "server" already
    ]
    return [part for part in parts if part]
