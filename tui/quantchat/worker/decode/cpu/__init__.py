"""Faster decoding on a CPU: the interface of this package (docs/explanation/cpu-decoding.md).

`fast_step` returns the fastest decode step of this package that computes the same logits as the
model's own modules. After that, these modules must run within `unfused_weights`. Of the rest
of the worker, only scoring uses anything else of this package: its kernels.

The package calls kernels of torch and bitsandbytes directly and reads layouts that these libraries
do not document. Another version may change them at any time, so each step is compared with the
modules when the model is loaded. If a step differs or raises an exception, it is undone, and the
modules compute instead.
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
    """The faster forms that were rejected, each with the reason; empty if none was."""


def fast_step(model: Any, fault: Callable[[Step], str], *, batches: bool = False) -> FastStep:
    """Return the fastest decode step for `model`, a transformers model on the CPU.

    `fault` compares a step with the model's modules and returns what is wrong with it, or an empty
    text. A form that raises an exception (for example because a library renamed an attribute) is
    rejected like a form that computes something else. If no form passes, `model` computes as
    before. With `batches`, fused steps are not tried, because they decode a single prompt.
    """
    rejected: list[str] = []
    for name, build, undo in _FORMS[batches:]:
        try:
            step = build(model)
            reason = "" if step is None else fault(step)
        except Exception as error:  # noqa: BLE001 - a library may raise anything, and the modules still work
            step, reason = None, describe(error).reason
        if step is not None and not reason:
            return FastStep(step, "; ".join(rejected))
        undo(model)
        if reason:
            rejected.append(f"not {name}: {reason}")
    return FastStep(None, "; ".join(rejected))


_Build = Callable[[Any], "Step | None"]


def _fused(model: Any) -> Step | None:
    from quantchat.worker.decode.cpu.llama_step import llama_step

    return llama_step(model)


def _direct(model: Any) -> Step | None:
    from quantchat.worker.decode.cpu.kernels import call_directly

    return EagerStep(model, "eager, direct kernel calls") if call_directly(model) else None


def _restore(model: Any) -> None:
    from quantchat.worker.decode.cpu.kernels import call_as_before

    call_as_before(model)


_FORMS: tuple[tuple[str, _Build, Callable[[Any], None]], ...] = (
    ("fused Llama steps", _fused, unfuse),
    ("direct kernel calls", _direct, _restore),
)
"""The forms, fastest first: name, function that builds it, function that undoes it. The second form
makes the modules of `model` themselves faster."""
