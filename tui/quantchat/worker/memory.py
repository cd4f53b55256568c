"""Count the memory of a loaded model: the bytes of its tensors and of its KV cache."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from quantchat.wire.variant import Ledger

_OVERHEAD = {
    "scales": ("absmax", "offset", "scales", "SCB", "weight_scale", "weight_scale_inv", "scale"),
    "zeros": ("qzeros", "_zeros_cache", "weight_zero_point", "zero_point", "zero"),
    "codebook": ("code",),
    "indices": ("g_idx", "_g_idx_long_cache", "g_idx_sort_indices", "ret_idx", "input_perm"),
}
"""Key: a kind of data that a quantization stores in addition to the weights (`zeros` are zero
points); value: the names of these tensors in bitsandbytes, GPTQModel, HQQ, torchao and
compressed-tensors."""

_KINDS = {name: kind for kind, names in _OVERHEAD.items() for name in names}
"""The same the other way round. Key: the name of a tensor; value: the kind of data."""


@dataclass
class TensorBytes:
    """Bytes of all tensors of a `torch.nn.Module`; shared storage counts once.

    Besides parameters and buffers this includes what bitsandbytes attaches to its parameters
    (`quant_state`: scales, codebook, and with double quantization the scales of the scales; `SCB`:
    the scales of int8), HQQ's `meta`, and the attributes in which GPTQ kernels store repacked
    weights.
    """

    by_dtype: Counter[str] = field(default_factory=Counter)
    """Bytes of all tensors, by dtype."""
    by_device: Counter[str] = field(default_factory=Counter)
    """Bytes of all tensors, by torch device."""
    overhead: Counter[str] = field(default_factory=Counter)
    """Bytes of the data that the quantization adds, by kind (the keys of `_OVERHEAD`)."""
    _seen: set[int] = field(default_factory=set)
    """Addresses of the storages that are counted already."""

    @classmethod
    def of(cls, model: Any) -> TensorBytes:
        """Count the tensors of `model`."""
        found = cls()
        for module in model.modules():
            for named in (module._parameters, module._buffers, vars(module)):
                for name, value in named.items():
                    found._count(name, value)
            # bitsandbytes moves the weights and scales of int8 into `state` at first use.
            found._count_parts(vars(module).get("state"), ("CB", "SCB"))
            if isinstance(meta := vars(module).get("meta"), dict):  # HQQ
                for name, value in meta.items():
                    found._count(name, value)
        return found

    def _count(self, name: str, value: Any) -> None:
        import torch

        if not isinstance(value, torch.Tensor):
            return
        if is_subclass(value):
            inner, _ = value.__tensor_flatten__()
            self._count_parts(value, tuple(inner))
            return
        # Count storages, not tensors: a repacked weight may have views of several shapes.
        storage = value.untyped_storage()
        if storage.data_ptr() not in self._seen and storage.nbytes():
            self._seen.add(storage.data_ptr())
            self.by_dtype[str(value.dtype).removeprefix("torch.")] += storage.nbytes()
            self.by_device[str(value.device)] += storage.nbytes()
            self._count_overhead(name, storage.nbytes())
        self._count_parts(value, ("CB", "SCB"))
        state = getattr(value, "quant_state", None)
        while state is not None:
            self._count_parts(state, tuple(vars(state)))
            state = getattr(state, "state2", None)

    def _count_parts(self, holder: Any, names: tuple[str, ...]) -> None:
        for name in names:
            self._count(name, getattr(holder, name, None))

    def _count_overhead(self, name: str, size: int) -> None:
        if name in ("scales_and_zeros", "scale_and_zero"):  # one tensor, for CPU kernels
            self.overhead["scales"] += size // 2
            self.overhead["zeros"] += size // 2
        elif name in _KINDS:
            self.overhead[_KINDS[name]] += size


def is_subclass(tensor: Any) -> bool:
    """Return whether `tensor` wraps other tensors (torchao's weights do) and has no storage."""
    return hasattr(tensor, "__tensor_flatten__") and not hasattr(tensor, "quant_state")


def kv_cache_bytes(cache: Any) -> int:
    """Return the bytes of a transformers `Cache`: keys and values of all layers.

    The keys of an indexer (DeepSeek sparse attention), which grow with the cache, are included.
    """
    total = 0
    for name in ("key_cache", "value_cache"):  # of transformers 4
        total += sum(t.numel() * t.element_size() for t in getattr(cache, name, None) or [])
    for layer in getattr(cache, "layers", None) or []:
        for name in ("keys", "values", "indexer_keys"):
            tensor = getattr(layer, name, None)
            if tensor is not None:
                total += tensor.numel() * tensor.element_size()
        for name in ("_quantized_keys", "_quantized_values"):
            total += _bytes_within(getattr(layer, name, None))
    return total


def _bytes_within(stored: Any) -> int:
    """Return the bytes of the tensors in `stored`: a tensor, tuple, list or dict of tensors."""
    if isinstance(stored, dict):
        return sum(map(_bytes_within, stored.values()))
    if isinstance(stored, tuple | list):
        return sum(map(_bytes_within, stored))
    return stored.numel() * stored.element_size() if hasattr(stored, "element_size") else 0


class Peak:
    """The peak memory of a process in bytes, and when a reading first showed it (in ns)."""

    def __init__(self) -> None:
        self.bytes = -1
        self.at_ns = -1

    def update(self, highest: int, now: int) -> None:
        """Take in `highest`, the process' peak memory in bytes, which was read at `now` in ns."""
        if highest > self.bytes:
            self.bytes, self.at_ns = highest, now


class LedgerReader:
    """Reads the memory ledger of one loaded model; fast enough to be read twice a second."""

    def __init__(self, model: Any, device: str, draft: Any = None) -> None:
        """Count the tensors of `model` and of the draft model `draft`, if there is one.

        `device` is the torch device of the weights, the first if there are several.
        """
        self._device = device
        self._tensors = TensorBytes.of(model)
        drafting = TensorBytes.of(draft) if draft is not None else TensorBytes()
        self._draft = drafting.by_dtype.total()
        places = {*self._tensors.by_device, *drafting.by_device}
        gpus = sorted(gpu for gpu in places if gpu.startswith("cuda"))
        self._gpus = gpus or [device]
        self._peak = Peak()

    def read(self, kv_cache: int) -> Ledger:
        """Return the ledger at this moment; `kv_cache` is the size of the KV cache in bytes."""
        now = time.perf_counter_ns()
        weights = self._tensors.by_dtype.total()
        by_gpu: dict[str, int] = {}
        if self._device.startswith("cuda"):
            import torch

            allocated = sum(torch.cuda.memory_allocated(gpu) for gpu in self._gpus)
            by_gpu = {gpu: torch.cuda.memory_reserved(gpu) for gpu in self._gpus}
            reserved = sum(by_gpu.values())
            other = max(0, allocated - weights - self._draft - kv_cache)
            slack = reserved - allocated
            non_torch = process = -1  # only NVML, which the main process reads, has these figures
            highest = sum(torch.cuda.max_memory_reserved(gpu) for gpu in self._gpus)
        else:
            other = slack = non_torch = -1
            process, highest = resident_bytes()
        self._peak.update(highest, now)
        return Ledger(
            device=self._device,
            weights=weights,
            weights_by_dtype=dict(self._tensors.by_dtype),
            draft=self._draft,
            overhead=dict(self._tensors.overhead),
            kv_cache=kv_cache,
            other_live=other,
            slack=slack,
            non_torch=non_torch,
            process=process,
            peak=self._peak.bytes,
            peak_at_ns=self._peak.at_ns,
            at_ns=now,
            weights_by_device=dict(self._tensors.by_device) if len(by_gpu) > 1 else {},
            reserved_by_device=by_gpu if len(by_gpu) > 1 else {},
        )


def resident_bytes() -> tuple[int, int]:
    """Return the resident memory of this process and its peak, in bytes; -1 if unknown.

    They are VmRSS and VmHWM of proc(5). Where these do not exist, only the peak is known, from
    getrusage(2).
    """
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:  # noqa: PTH123
            fields = dict(line.split(":", 1) for line in status if line.startswith("Vm"))
        return tuple(int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))  # type: ignore[return-value]
    except (OSError, KeyError, ValueError):
        import resource

        return -1, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
