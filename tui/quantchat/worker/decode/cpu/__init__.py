"""Faster decoding on a CPU: the interface of this package (docs/explanation/cpu-decoding.md).

`fast_step` returns the fastest decode step of this package that computes the same logits as the
model's own modules. After a call of `fast_step`, code that runs these modules themselves must do so
within `unfused_weights`, because their weights may be parts of fused ones. Other packages use only
these two functions; scoring also uses `kernels.NATIVE_BF16`.

The package calls kernels of torch and bitsandbytes directly and reads weight layouts that these
libraries do not document. Another version of a library may change a layout at any time, so the
logits of each step are compared with those of the modules when the model is loaded. If they differ,
or if the step raises an exception, the step is undone, and the modules compute instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from quantchat.worker.decode.cpu.fused_weights import unfuse, unfused_weights
from quantchat.worker.decode.steps import Step
from quantchat.worker.decode.steps.eager import EagerStep
from quantchat.worker.failures import describe

__all__ = ["FastStep", "fast_step", "unfused_weights"]


class FastStep(NamedTuple):
    """The result of `fast_step`."""

    step: Step | None
    """None if no step passed: then the model's own modules compute."""
    rejected: str
    """The faster forms of a step (see `_FORMS`) that were rejected, each with the reason; empty if
    none was rejected."""


def fast_step(model: Any, fault: Callable[[Step], str], *, batches: bool = False) -> FastStep:
    """Return the fastest decode step for `model`, a transformers model on the CPU.

    The forms of a step in `_FORMS` are tried in order. `fault` compares a step with the model's
    modules and returns what is wrong with the step, or an empty text. A form that raises an
    exception (for example because a library renamed an attribute) is rejected like a form with
    wrong logits. If no form passes, `model` computes as before. With `batches`, fused steps are not
    tried, because they decode a single prompt.
    """
    rejected: list[str] = []
    for form in _FORMS:
        if batches and form.fused:
            continue
        try:
            step = form.build(model)
            reason = "" if step is None else fault(step)
        except Exception as error:  # noqa: BLE001 - a library may raise anything, and the modules still work
            step, reason = None, describe(error).reason
        if step is not None and not reason:
            return FastStep(step, "; ".join(rejected))
        form.undo(model)
        if reason:
            rejected.append(f"not {form.name}: {reason}")
    return FastStep(None, "; ".join(rejected))


def _fused(model: Any) -> Step | None:
    from quantchat.worker.decode.cpu.llama_step import llama_step

    return llama_step(model)


def _fused_in_c(model: Any) -> Step | None:
    from quantchat.worker.decode.cpu.llama_step_in_c import llama_step_in_c

    return llama_step_in_c(model)


def _direct(model: Any) -> Step | None:
    from quantchat.worker.decode.cpu.kernels import call_directly

    return EagerStep(model, "eager, direct kernel calls") if call_directly(model) else None


def _restore(model: Any) -> None:
    from quantchat.worker.decode.cpu.kernels import call_as_before

    call_as_before(model)


class _Form(NamedTuple):
    """A faster form of a step."""

    name: str
    build: Callable[[Any], Step | None]
    """Builds the step for a model, or returns None for a model that it cannot decode."""
    undo: Callable[[Any], None]
    """Undoes what `build` changed in the model."""
    fused: bool
    """Whether the step replaces the model's modules, for a single prompt. Otherwise it makes the
    modules themselves faster."""


_FORMS = (
    _Form("fused Llama steps in C", _fused_in_c, unfuse, fused=True),
    _Form("fused Llama steps", _fused, unfuse, fused=True),
    _Form("direct kernel calls", _direct, _restore, fused=False),
)
"""The faster forms of a step, fastest first."""
