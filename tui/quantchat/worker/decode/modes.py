"""Which loop decodes: the one that was wished for, or the fastest that passes its check here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from quantchat.worker.decode.cache_rules import ORDINARY, CacheRules
from quantchat.worker.decode.check import Check
from quantchat.worker.decode.loop import Loop
from quantchat.worker.decode.native_loop import NativeLoop
from quantchat.worker.decode.steps import Step
from quantchat.worker.decode.steps.eager import EagerStep
from quantchat.worker.decode.unfollowed import note as unfollowed_note
from quantchat.worker.failures import DEVICE_FAILED, Refused, describe
from quantchat.worker.model.loaded import Loaded

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Chosen:
    """The loop that decodes."""

    loop: Loop
    name: str
    """The mode, and what of it runs where it has several forms."""
    note: str = ""
    """Why not a faster one, and what of the cache or of the checkpoint's wishes is not as usual."""
    rules: CacheRules = ORDINARY


def choose(loaded: Loaded, wish: str, tell: Tell) -> Chosen:
    """The loop for `wish`: auto, generate, eager, compile or graph. `tell` hears of long work.

    `auto` is a captured graph on a GPU, and the eager loop on a CPU, where it calls the kernels
    directly; there a compiled step is slower and takes a minute to make. Raises Refused where a
    mode is wished for by name and cannot be had, and for a model that no loop can decode.
    """
    if wish not in ("auto", "generate", *_STEPS):
        raise Refused("unsupported", f"no decode mode is named {wish!r}")
    check = Check(loaded)  # also the first forward pass, in which kernels repack their weights
    if wish == "generate":
        from quantchat.worker.decode.generate_loop import GenerateLoop

        loop = GenerateLoop(loaded.model, loaded.input_device, check.rules)
        return Chosen(loop, "generate", _note(loaded, check.rules), check.rules)
    if wish != "auto":
        return _chosen(_STEPS[wish](loaded.model, check, tell), loaded, check.rules)
    modes = ("graph", "eager") if loaded.device.startswith("cuda") else ("eager",)
    problems: list[str] = []
    for mode in modes:
        try:
            step = _STEPS[mode](loaded.model, check, tell)
            return _chosen(step, loaded, check.rules, problems)
        except Exception as error:  # of whatever kind: the next mode may do without
            if mode == modes[-1]:
                raise
            problems.append(f"not {mode}: {describe(error).reason}")
    raise AssertionError("unreachable: the last mode is returned or raises")


def _chosen(step: Step, loaded: Loaded, rules: CacheRules, problems: Sequence[str] = ()) -> Chosen:
    loop = NativeLoop(step, loaded.input_device, rules)
    return Chosen(loop, step.name, _note(loaded, rules, problems), rules)


def _note(loaded: Loaded, rules: CacheRules, problems: Sequence[str] = ()) -> str:
    wishes = unfollowed_note(loaded.model.generation_config)
    return "; ".join(filter(None, [*problems, rules.note, wishes]))


# ------------------------------------------------------------ each mode, checked


def _eager(model: Any, check: Check, _tell: Tell) -> Step:
    """The fastest form that computes the same: fused, direct, or the modules as they are."""
    if model.device.type == "cpu":
        from quantchat.worker.decode.cpu import fused_weights, kernels
        from quantchat.worker.decode.cpu.llama_step import llama_step

        fused = llama_step(model)
        if fused is not None and not check.fault(fused):
            return fused
        fused_weights.unfuse(model)
        if kernels.call_directly(model):
            direct = EagerStep(model, "eager, direct kernel calls")
            if not check.fault(direct):
                return direct
            kernels.call_as_before(model)
    return EagerStep(model)


def _compiled(model: Any, check: Check, tell: Tell) -> Step:
    from quantchat.worker.decode.steps.compiled import CompiledStep, missing_compiler

    missing = missing_compiler(model.device)
    if missing:
        raise Refused(
            "unsupported",
            f'decode = "compile" is not possible: {missing}',
            "install gcc, g++ and python3-dev",
        )
    step = CompiledStep(model)
    tell("compiling the decode step")
    return _passed("compile", step, check)


def _graph(model: Any, check: Check, tell: Tell) -> Step:
    """With norms of one kernel each, where that computes the same: a deep model may round off."""
    from quantchat.worker.decode.norms import plain_norms
    from quantchat.worker.decode.steps.graph import GraphStep

    step = GraphStep(model, plain_norms(model))
    tell("capturing the decode step")
    if not _fault("graph", step, check):
        return step
    return _passed("graph", GraphStep(model), check)


_MEND = 'use decode = "eager"'


def _passed(mode: str, step: Step, check: Check) -> Step:
    if fault := _fault(mode, step, check):
        what = f'decode = "{mode}" computes something else here: {fault}'
        raise Refused("unsupported", what, _MEND)
    return step


def _fault(mode: str, step: Step, check: Check) -> str:
    """What `step` computes otherwise. Raises Refused where it cannot be had at all."""
    try:
        return check.fault(step)
    except Refused:
        raise
    except Exception as error:  # a compiler's, a capture's: nothing is wrong with the model
        failure = describe(error)
        if failure.kind in ("out_of_memory", DEVICE_FAILED):
            raise
        what = f'decode = "{mode}" is not possible here: {failure.reason}'
        raise Refused("unsupported", what, _MEND) from error


_STEPS: dict[str, Callable[[Any, Check, Tell], Step]] = {
    "eager": _eager,
    "compile": _compiled,
    "graph": _graph,
}
