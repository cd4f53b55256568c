"""Choose the decode loop and step: the requested mode, or the fastest one that passes `Check`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from quantchat.worker.decode.cache_rules import ORDINARY, CacheRules
from quantchat.worker.decode.caches import variant_cache
from quantchat.worker.decode.check import Check
from quantchat.worker.decode.draft import Draft
from quantchat.worker.decode.loop import Loop
from quantchat.worker.decode.native_loop import NativeLoop
from quantchat.worker.decode.steps import Step
from quantchat.worker.decode.steps.eager import EagerStep
from quantchat.worker.failures import DEVICE_FAILED, Refused, describe
from quantchat.worker.model.loaded import Loaded

_WITH_DRAFT = "with a draft each prompt is computed from its start, in one piece"

Report = Callable[[str], None]
"""A function that is called with the name of each slow stage."""


@dataclass(frozen=True)
class ChosenLoop:
    """The loop that decodes."""

    loop: Loop
    name: str
    """The decode mode, with further detail if needed, e.g. `eager, fused Llama steps`."""
    note: str = ""
    """Notes for the user: why no faster mode is used, how the KV cache differs from an ordinary one
    (`CacheRules.note`), which settings of the checkpoint are ignored."""
    rules: CacheRules = ORDINARY


def choose(loaded: Loaded, mode: str, report: Report, draft: Draft | None = None) -> ChosenLoop:
    """Return the loop for `mode`: auto, generate, eager, compile or graph.

    Only `generate` decodes with a `draft`, so `auto` then means `generate`. Without a draft, on a
    GPU, `auto` means `graph`, or `eager` if no graph is possible. On a CPU it means `eager`, which
    calls the kernels directly there: a compiled step is slower on a CPU, or with bf16 as fast, and
    takes a minute to compile. A quantized KV cache is also decoded with `eager`. Raises Refused if
    a mode that the profile names cannot run here, or if no loop can decode the model.
    """
    if mode not in ("auto", "generate", *_STEPS):
        raise Refused("unsupported", f"there is no decode mode {mode!r}", 'use decode = "auto"')
    if draft is not None and mode not in ("auto", "generate"):
        raise Refused(
            "unsupported",
            f'a draft is not possible with decode = "{mode}"',
            'use decode = "generate", or leave out `draft`',
        )
    check = Check(loaded)  # also the first forward pass, in which kernels repack their weights
    new_cache = variant_cache(loaded.command, loaded.model.config)
    cached = f", KV cache {loaded.command.option('kv_cache', '')}" if new_cache else ""
    if mode == "generate" or draft is not None:
        from quantchat.worker.decode.generate_loop import GenerateLoop

        loop = GenerateLoop(loaded.model, loaded.input_device, check.rules, new_cache, draft)
        drafting = [_WITH_DRAFT] if draft is not None else []
        note = _note(loaded, check.rules, drafting)
        return ChosenLoop(loop, f"generate{cached}", note, check.rules)
    if new_cache:
        step = EagerStep(loaded.model, f"eager{cached}", new_cache)
        return _loop_of(CheckedStep(step), loaded, check.rules)
    if mode != "auto":
        return _loop_of(_STEPS[mode](loaded.model, check, report), loaded, check.rules)
    modes = ("graph", "eager") if loaded.device.startswith("cuda") else ("eager",)
    problems: list[str] = []
    for one in modes:
        try:
            checked = _STEPS[one](loaded.model, check, report)
            return _loop_of(checked, loaded, check.rules, problems)
        except Exception as error:  # any exception: the next mode may still work
            if one == modes[-1]:
                raise
            problems.append(f"not {one}: {describe(error).reason}")
    raise AssertionError("unreachable: the last mode is returned or raises")


class CheckedStep(NamedTuple):
    """A step that has passed the comparison with the model's modules."""

    step: Step
    note: str = ""
    """Why no faster step is used."""


def _loop_of(
    checked: CheckedStep, loaded: Loaded, rules: CacheRules, problems: Sequence[str] = ()
) -> ChosenLoop:
    loop = NativeLoop(checked.step, loaded.input_device, rules)
    note = _note(loaded, rules, [*problems, checked.note])
    return ChosenLoop(loop, checked.step.name, note, rules)


def _note(loaded: Loaded, rules: CacheRules, problems: Sequence[str] = ()) -> str:
    parts = [*problems, rules.note]
    if ignored := ignored_settings(loaded.model.generation_config):
        parts.append(
            f"generation_config.json sets {', '.join(ignored)}, which quantchat does not apply"
        )
    return "; ".join(filter(None, parts))


# ------------------------------------------------------------ settings of the checkpoint

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "bad_words_ids": (),
    "begin_suppress_tokens": (),
    "encoder_no_repeat_ngram_size": (0,),
    "epsilon_cutoff": (0, 0.0),
    "eta_cutoff": (0, 0.0),
    "exponential_decay_length_penalty": (),
    "forced_bos_token_id": (),
    "forced_eos_token_id": (),
    "guidance_scale": (1, 1.0),
    "min_length": (0,),
    "min_new_tokens": (0,),
    "min_p": (0, 0.0),
    "no_repeat_ngram_size": (0,),
    "num_beams": (1,),
    "penalty_alpha": (0, 0.0),
    "sequence_bias": (),
    "stop_strings": (),
    "suppress_tokens": (),
    "top_h": (0, 0.0),
    "typical_p": (1, 1.0),
    "watermarking_config": (),
}
"""Key: a setting of transformers that changes which tokens are chosen; value: the values that turn
it off. None and empty values always turn it off."""


def ignored_settings(config: Any) -> list[str]:
    """Return the names of the settings in `config`, a `GenerationConfig`, that no loop applies.

    Every loop chooses tokens by the request's sampling settings alone, so that two variants differ
    in their weights and not in their generation_config.json.
    """
    found = ((name, getattr(config, name, None)) for name in _NEUTRAL)
    return [
        name
        for name, value in found
        if value is not None and value not in ([], {}, "") and value not in _NEUTRAL[name]
    ]


# ------------------------------------------------------------ each mode, checked


def _eager(model: Any, check: Check, _report: Report) -> CheckedStep:
    """Return the fastest eager step with the same logits as the model's own modules.

    On a CPU it may be a step of `decode.cpu`; otherwise the model's own modules compute.
    """
    if model.device.type != "cpu":
        return CheckedStep(EagerStep(model))
    from quantchat.worker.decode import cpu

    fast = cpu.fast_step(model, check.fault)
    return CheckedStep(fast.step or EagerStep(model), fast.rejected)


def _compiled(model: Any, check: Check, report: Report) -> CheckedStep:
    from quantchat.worker.decode.steps.compiled import CompiledStep, missing_compiler

    missing = missing_compiler(model.device)
    if missing:
        raise Refused(
            "unsupported",
            f'decode = "compile" is not possible: {missing}',
            "install gcc, g++ and python3-dev",
        )
    step = CompiledStep(model)
    report("compiling the decode step")
    return CheckedStep(_passed_step("compile", step, check))


def _graph(model: Any, check: Check, report: Report) -> CheckedStep:
    """Return the graph step, with fused norms unless their rounding makes the check fail."""
    from quantchat.worker.decode.norms import fusable_norms
    from quantchat.worker.decode.steps.graph import GraphStep

    step = GraphStep(model, fusable_norms(model))
    report("capturing the decode step")
    if not _fault("graph", step, check):
        return CheckedStep(step)
    return CheckedStep(_passed_step("graph", GraphStep(model), check))


_HINT = 'use decode = "eager"'


def _passed_step(mode: str, step: Step, check: Check) -> Step:
    if fault := _fault(mode, step, check):
        what = f'decode = "{mode}" gives different results here: {fault}'
        raise Refused("unsupported", what, _HINT)
    return step


def _fault(mode: str, step: Step, check: Check) -> str:
    """Return what is wrong with `step`, or an empty text. Raises Refused if it cannot run."""
    try:
        return check.fault(step)
    except Refused:
        raise
    except Exception as error:
        # A compiler or a capture may raise anything; it does not mean that the model is damaged.
        failure = describe(error)
        if failure.kind in ("out_of_memory", DEVICE_FAILED):
            raise
        what = f'decode = "{mode}" is not possible here: {failure.reason}'
        raise Refused("unsupported", what, _HINT) from error


_STEPS: dict[str, Callable[[Any, Check, Report], CheckedStep]] = {
    "eager": _eager,
    "compile": _compiled,
    "graph": _graph,
}
