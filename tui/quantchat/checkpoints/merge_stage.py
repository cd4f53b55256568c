"""The build stage that merges a LoRA adapter into a model."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from quantchat.checkpoints.full_precision import FromWeights
from quantchat.checkpoints.sources import ModelName
from quantchat.checkpoints.stages import MIB, BuildContext
from quantchat.common.adapter_folder import CONFIG, WEIGHTS, digest
from quantchat.common.versions import versions
from quantchat.wire.jobs import MergeAdapterJob

_LIBRARIES = ("peft", "torch", "transformers")


@dataclass(frozen=True)
class Merge(FromWeights):
    """The stage that merges a LoRA adapter into the weights of a model in full precision."""

    adapter: str
    """The absolute path of a folder, or an id on the Hugging Face hub."""
    key = "merging the adapter"
    title = "merging the adapter"

    @property
    def slug(self) -> str:
        """The short names of model and adapter."""
        return f"{self.weights.source.slug}-with-{ModelName(self.adapter).slug}"

    @property
    def inputs(self) -> dict[str, object]:
        """The weights, a tokenizer taken from another model, the adapter, the library versions."""
        return {
            **self.weights.inputs,
            **self.weights.borrowed_tokenizer,
            "adapter": _identity(self.adapter),
            "versions": versions(_LIBRARIES),
            "recipe": 1,
        }

    def disk_bytes(self, needs: Sequence[Path]) -> int:
        """Upper bound in bytes: the size of the weights and a margin."""
        return self.weights.bytes(needs) + 64 * MIB

    async def build(self, work: BuildContext) -> dict[str, object]:
        """Merge the adapter in a worker; return the job's result for `made.json`."""
        job = MergeAdapterJob(self.weights.load(work), self.adapter, work.workspace)
        result = await work.job(job)
        return asdict(result)


def _identity(adapter: str) -> str:
    """Return the identity of an adapter: a hash over its files, or its id with the revision.

    For a folder without an adapter's files, return its path; the worker then reports the problem.
    """
    folder = Path(adapter)
    if not folder.is_absolute():
        return adapter if "@" in adapter else f"{adapter}@main"
    try:
        state = tuple((folder / name).stat() for name in (CONFIG, WEIGHTS))
        return _hashed(folder, *((one.st_size, one.st_mtime_ns) for one in state))
    except OSError:
        return adapter


@functools.lru_cache
def _hashed(folder: Path, *_state: tuple[int, int]) -> str:
    """Return the adapter's hash, cached while sizes and modification times stay the same.

    Hashing reads all of the adapter, which can be hundreds of megabytes.
    """
    return f"sha256:{digest(folder)}"
