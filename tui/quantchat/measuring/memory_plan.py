"""Estimate the memory that a profile's variants need, and whether two of them fit together.

The estimate is computed from the configuration and the headers of the model files. No model is
loaded and no ML library imported.
"""

from __future__ import annotations

import bisect
import importlib.metadata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Literal
from urllib.parse import urlsplit

from quantchat.checkpoints.variant_files import (
    PROMPT_TOKENS,
    estimate_of,
    files_to_load,
    guess,
    is_of_hub,
)
from quantchat.common import cuda_driver
from quantchat.common.memory_rules import WEIGHTS_SHARE
from quantchat.engines.memory import notes
from quantchat.engines.registry import engine_of
from quantchat.errors import UserError
from quantchat.estimate.memory import Estimate
from quantchat.estimate.model_files import ModelFiles
from quantchat.profile.model import AnyVariant, Profile
from quantchat.system.gpus import GpuSample, lowest_capability
from quantchat.system.sampler import DeviceSample
from quantchat.system.visible_gpus import gpus_visible_here
from quantchat.text import one_line

SHARED_GPUS_NOTE = "where one variant may fill a GPU that the other needs"
"""Note for two variants that share several GPUs; printed after the free memory of these GPUs."""

MOST_TOKENS, MOST_BATCH = 10**8, 10**5
"""Upper limits when searching for the longest context, in tokens, and the largest batch."""

Fit = Literal["fits", "tight", "does not fit", "not known", "cannot run"]


@dataclass(frozen=True)
class DeviceMemory:
    """A device, or a server, and its memory in bytes; None if it is not known."""

    name: str
    cuda: bool
    free: int | None
    total: int | None
    gpus: tuple[int, ...] = ()
    """Indices of the GPUs; several if weights are split over them."""
    capability: tuple[int, int] | None = None
    """Compute capability, the lowest of several GPUs; None if it is not known."""
    unusable: str = ""
    """Why torch cannot use the GPU, and what to do about it; empty if no reason is known."""


@dataclass(frozen=True)
class VariantPlan:
    """The memory that one variant needs, or the reason (`problem`) why it cannot be estimated.

    With both a problem and an estimate, the estimate is only a guess from the model's name.
    """

    label: str
    device: DeviceMemory
    estimate: Estimate | None
    problem: str = ""
    notes: list[str] = field(default_factory=list)
    longest_context: int | None = None
    """Most tokens (prompt and answer) that fit into the free memory; 0 if the weights do not fit;
    None if it is not known or was not requested."""
    largest_batch: int | None = None
    """Most contexts of `estimate.context_tokens` tokens that fit at once; 0 and None as for
    `longest_context`."""


@dataclass(frozen=True)
class DevicePlan:
    """The memory, in bytes, that variants on one device need together.

    Only the two variants that are compared (the pair) are considered.

    A multi-GPU variant shares a device with another variant if any GPU is common.
    """

    device: DeviceMemory
    labels: list[str]
    total: int | None
    """Bytes when loaded, with full contexts; None if a variant cannot be estimated."""
    peak: int | None
    """Largest number of bytes while both variants load at once; None as for `total`."""

    @property
    def shares_several_gpus(self) -> bool:
        """Whether both variants share several GPUs.

        One variant may then fill a GPU that the other needs, however large the GPUs are.
        """
        return len(self.device.gpus) > 1 and len(self.labels) > 1

    @property
    def fit(self) -> Fit:
        """Whether the variants fit; `tight` means that they may not fit while both are loading.

        If both variants share several GPUs, `tight` is the best result: GPUs are filled one after
        the other, so the sum of their free memory says nothing about a single GPU.
        """
        if self.device.unusable:
            return "cannot run"
        if self.total is None or self.peak is None or self.device.free is None:
            return "not known"
        if self.total > self.device.free:
            return "does not fit"
        return "fits" if self.peak <= self.device.free and not self.shares_several_gpus else "tight"


@dataclass(frozen=True)
class MemoryPlan:
    """The memory plan of a profile: each variant, and each device that the pair would use."""

    name: str
    variants: list[VariantPlan]
    devices: list[DevicePlan]

    @property
    def nothing_known(self) -> bool:
        """Whether no variant can be estimated."""
        return not any(variant.estimate for variant in self.variants)

    @property
    def fit(self) -> Fit:
        """The worst `fit` of all devices."""
        order: tuple[Fit, ...] = ("cannot run", "does not fit", "not known", "tight", "fits")
        return min((one.fit for one in self.devices), key=order.index)


def make_plan(
    profile: Profile,
    sample: DeviceSample,
    *,
    tokens: int | None = None,
    pair: tuple[int, ...] = (0, 1),
    fetch: bool = False,
    by_name: bool = False,
    search_limits: bool = False,
) -> MemoryPlan:
    """Plan the memory of each variant of `profile`, and of two of them (`pair`) together.

    `sample` describes the machine, `pair` has the indices of the two variants. `tokens` is the
    length of the context (prompt and answer) in tokens; the default is the longest answer of the
    profile plus `PROMPT_TOKENS`. With `fetch`, headers of models that are not on this machine are
    read from the hub. With `by_name`, the size of such a model is guessed from its name. With
    `search_limits`, the longest context and the largest batch are searched for.
    """
    tokens = tokens or profile.generation.max_new_tokens + PROMPT_TOKENS
    variants = [
        plan_variant(
            spec, sample, tokens=tokens, fetch=fetch, by_name=by_name, search_limits=search_limits
        )
        for spec in profile.variants
    ]
    chosen = [variants[index] for index in pair]
    devices = [_all_common_gpus(variant.device, chosen) for variant in chosen]
    return MemoryPlan(
        profile.name,
        variants,
        [
            _device_plan(
                device, [v for v, its in zip(chosen, devices, strict=True) if its == device]
            )
            for device in dict.fromkeys(devices)
        ],
    )


def warning(profile: Profile, sample: DeviceSample, pair: tuple[int, ...] = (0, 1)) -> str | None:
    """Return a warning if the `pair` cannot run, does not fit or fits tightly; else None.

    Reads files and does not access the hub. Takes milliseconds, but longer for the first model with
    a hub id, because the hub's library is then imported.
    """
    found = []
    for plan in make_plan(profile, sample, pair=pair).devices:
        if plan.device.unusable:
            found.append(f"{' and '.join(plan.labels)} cannot run: {plan.device.unusable}")
        if plan.fit in ("does not fit", "tight") and plan.total is not None:
            needed = plan.total if plan.fit == "does not fit" else plan.peak
            when = "" if plan.fit == "does not fit" else " while loading"
            found.append(
                f"{' and '.join(plan.labels)} need about {_gib(needed)}{when}, "
                f"{_gib(plan.device.free)} are free on {plan.device.name}"
                f"{f', {SHARED_GPUS_NOTE}' if plan.shares_several_gpus else ''}"
            )
    return "; ".join(found) or None


def plan_variant(
    spec: AnyVariant,
    sample: DeviceSample,
    *,
    tokens: int,
    fetch: bool = False,
    by_name: bool = False,
    search_limits: bool = False,
) -> VariantPlan:
    """Plan the memory of one variant. The arguments are those of `make_plan`."""
    device = _first_device(spec, sample)
    engine = engine_of(spec)
    if engine.is_server:
        seen = "is measured when it runs" if _started_here(spec) else "is not known from here"
        return VariantPlan(spec.label, device, None, f"the memory of a server {seen}")
    risks = [
        f"CAUTION: {unsafe_option}, which could do anything you can"
        for unsafe_option in spec.unsafe_options
    ]
    if adapter := spec.options.get("adapter"):
        risks.append(f"the adapter {adapter} needs additional memory")
    try:
        files, remarks = files_to_load(spec, fetch=fetch)
    except UserError as error:
        guessed = guess(spec, device.cuda, tokens) if by_name and is_of_hub(spec) else None
        return VariantPlan(spec.label, _usable(device, spec, sample), guessed, str(error), risks)
    if not (spec.python or spec.env):
        lacking = files.folder.missing_packages(engine.reader, gguf=bool(engine.gguf_file(spec)))
        remarks += [f"{problem.what}: {problem.hint}" for problem in lacking]
    first = device

    def estimate_at(count: int) -> Estimate:
        return estimate_of(spec, files, first.cuda, count, first.capability)

    estimated = estimate_at(tokens)
    device = _larger_device(spec, sample, files, estimated) or device
    risks += engine.cautions(spec, cuda=device.cuda)
    device = _usable(device, spec, sample)
    remarks += notes(spec, files, tokens, cuda=device.cuda, capability=device.capability)
    planned = VariantPlan(spec.label, device, estimated, notes=[*risks, *remarks])
    if not search_limits or device.free is None or device.unusable or estimated.kv_cache < 0:
        return planned
    free = device.free
    return replace(
        planned,
        longest_context=_most(
            estimate_at(MOST_TOKENS).context_tokens,
            lambda count: estimate_at(count).total <= free,
        ),
        largest_batch=_most(MOST_BATCH, lambda count: estimated.of_batch(count) <= free),
    )


def _most(highest: int, fits: Callable[[int], bool]) -> int:
    """Return the highest count up to `highest` that `fits`, by bisection; 0 if none fits."""
    return bisect.bisect_left(range(1, highest + 1), True, key=lambda count: not fits(count))


def _usable(device: DeviceMemory, spec: AnyVariant, sample: DeviceSample) -> DeviceMemory:
    """Return `device` with the reason why torch cannot use its GPU, if there is one."""
    if not device.cuda or spec.python or spec.env:  # another interpreter has its own torch
        return device
    return replace(device, unusable=_why_unusable(sample.cuda))


def _first_device(spec: AnyVariant, sample: DeviceSample) -> DeviceMemory:
    """Return the device on which the worker of `spec` would load a small model, or the server."""
    if engine_of(spec).is_server:
        address = str(getattr(spec, "base_url", ""))
        where = "a server started here" if _started_here(spec) else urlsplit(address).netloc
        return DeviceMemory(one_line(where), False, None, None)
    gpus = gpus_visible_here(sample.gpus)
    index = int(spec.device.partition(":")[2] or 0)
    auto_cpu = spec.device == "auto" and (
        not gpus or (not (spec.python or spec.env) and _torch_without_cuda())
    )
    if spec.device == "cpu" or auto_cpu:
        host = sample.host
        return DeviceMemory("RAM", False, host.ram_total - host.ram_used, host.ram_total)
    if index >= len(gpus):
        return DeviceMemory(f"cuda:{index}, which is not there", True, None, None)
    return _gpu_device(gpus[index])


def _started_here(spec: AnyVariant) -> bool:
    """Return whether quantchat itself starts the server that runs `spec`."""
    return getattr(spec, "server", None) is not None


def _gpu_device(gpu: GpuSample) -> DeviceMemory:
    name = f"GPU {gpu.index} ({gpu.name})"
    return DeviceMemory(name, True, gpu.memory_free, gpu.memory_total, (gpu.index,), gpu.capability)


def _larger_device(
    spec: AnyVariant, sample: DeviceSample, files: ModelFiles, needed: Estimate
) -> DeviceMemory | None:
    """Return the GPUs that the worker chooses if the weights are too large for the first GPU.

    These are the first GPU with enough free memory for the whole checkpoint or, if there is none
    and the engine can split the weights, all GPUs together. None means that the device of
    `_first_device` is used.
    """
    gpus = gpus_visible_here(sample.gpus)
    if not needed.cuda or spec.device != "auto":
        return None
    if len(gpus) < 2 or gpus[0].memory_free is None:
        return None
    # An engine that loads only quantized checkpoints loads the model at its quantized size.
    checkpoint = needed.weights if engine_of(spec).only_quantized else files.bytes
    free = [(gpu, WEIGHTS_SHARE * gpu.memory_free) for gpu in gpus if gpu.memory_free is not None]
    fitting = next((gpu for gpu, most in free if checkpoint <= most), None)
    if fitting is not None:
        return _gpu_device(fitting)
    if not engine_of(spec).spreads or needed.weights <= WEIGHTS_SHARE * gpus[0].memory_free:
        return None
    return DeviceMemory(
        f"GPUs {', '.join(str(gpu.index) for gpu in gpus)} together",
        True,
        _sum(gpu.memory_free for gpu in gpus),
        _sum(gpu.memory_total for gpu in gpus),
        tuple(gpu.index for gpu in gpus),
        lowest_capability(gpus),
    )


def _all_common_gpus(device: DeviceMemory, pair: list[VariantPlan]) -> DeviceMemory:
    """Return `device`, or all GPUs of a multi-GPU variant in `pair` if `device` is one of them."""
    wider = (v.device for v in pair if device.gpus and set(device.gpus) < set(v.device.gpus))
    return next(wider, device)


def _sum(counts: Iterable[int | None]) -> int | None:
    """Return the sum; None if one of `counts` is unknown."""
    known = list(counts)
    return None if None in known else sum(filter(None, known))


def _why_unusable(driver_cuda: str | None) -> str:
    """Return why torch cannot use any GPU here, and what to do; empty if it can."""
    built_for = cuda_driver.cuda_of_torch()
    if driver_cuda is None or not cuda_driver.too_old(driver_cuda, built_for):
        return ""
    return f"{cuda_driver.problem(driver_cuda, built_for)} ({cuda_driver.hint(built_for)})"


def _torch_without_cuda() -> bool:
    try:
        return importlib.metadata.version("torch").endswith("+cpu")
    except importlib.metadata.PackageNotFoundError:
        return False


def _device_plan(device: DeviceMemory, variants: list[VariantPlan]) -> DevicePlan:
    known = [variant.estimate for variant in variants if variant.estimate is not None]
    whole = len(known) == len(variants)
    return DevicePlan(
        device,
        [variant.label for variant in variants],
        sum(one.total for one in known) if whole else None,
        sum(one.peak for one in known) if whole else None,
    )


def _gib(count: int | None) -> str:
    return "–" if count is None else f"{count / 2**30:.1f} GiB"
