"""Find out whether a profile fits into this machine's memory, and what must be downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quantchat.checkpoints.builder import CheckpointBuilder
from quantchat.checkpoints.variant_files import to_download
from quantchat.errors import UserError
from quantchat.measuring.memory_plan import DevicePlan, Fit, make_plan
from quantchat.profile.model import AnyVariant, Profile
from quantchat.system.sampler import DeviceSample


@dataclass(frozen=True)
class OpeningNeeds:
    """The memory and downloads that the first two variants of a profile need on this machine."""

    fit: Fit
    guessed: bool
    """Whether a size was guessed from a model's name."""
    devices: tuple[DevicePlan, ...]
    unknown: tuple[str, ...]
    """For each variant whose memory is not known, the reason."""
    downloads: tuple[tuple[str, int | None], ...]
    """Each model that is not on this machine, with the bytes to download; None if not known."""
    to_quantize: tuple[str, ...]
    """Labels of the variants whose checkpoint must first be quantized on this machine."""


def opening_needs(profile: Profile, sample: DeviceSample) -> OpeningNeeds:
    """Return what it takes to open `profile` on the machine that `sample` describes.

    Reads files and does not access the hub. Takes milliseconds, but longer for the first model with
    a hub id, because the hub's library is then imported.
    """
    plan = make_plan(profile, sample, by_name=True)
    pair = plan.variants[:2]
    specs = profile.variants[:2]
    return OpeningNeeds(
        plan.fit,
        any(variant.estimate and variant.problem for variant in pair),
        tuple(plan.devices),
        tuple(variant.problem for variant in pair if variant.estimate is None),
        tuple(dict.fromkeys(filter(None, map(to_download, specs)))),
        tuple(_to_quantize(specs)),
    )


def _to_quantize(specs: Sequence[AnyVariant]) -> list[str]:
    found = []
    builder = CheckpointBuilder()
    for spec in specs:
        try:
            if spec.calibration_table and builder.find(spec) is None:
                found.append(spec.label)
        except UserError:  # the model's folder does not exist; `OpeningNeeds.unknown` says so
            continue
    return found
