"""What a worker tells of its variant once that is loaded: what really runs, and what it holds."""

from __future__ import annotations

from dataclasses import dataclass, field

SERVER = "server"
"""The `device` of a variant that another program runs; what it holds is not known."""
STARTED_SERVER = "server started here"
"""The same, of a program that the worker started: its memory is the worker's process tree's."""
SERVERS = (SERVER, STARTED_SERVER)


@dataclass(frozen=True)
class Resolved:
    """What really runs, read off the loaded model and not off the wish."""

    engine: str
    model: str
    """Folder or id it was loaded from."""
    architecture: str
    kernel: str
    """Class (and format) of the quantized linear layers, e.g. `Linear4bit nf4, double quant`."""
    dtype: str
    device: str
    device_name: str
    attention: str
    decode: str
    context_length: int
    chat_template: bool
    tokenizer_hash: str
    """SHA-256 over the vocabulary and merges: equal hashes make token ids comparable."""
    threads: int
    libraries: dict[str, str] = field(default_factory=dict)
    parameters: int = 0
    checkpoint_hash: str = ""
    """SHA-256 over the names, sizes and headers of the checkpoint's files. Of a server's empty, but
    for Ollama, which tells that of the file of weights."""
    pickle_allowed: bool = False
    """Whether weights that are pickled would have been opened."""
    trusted_code: bool = False
    adapter: str = ""
    """Folder or id of the LoRA adapter on the model; empty where there is none."""
    adapter_hash: str = ""
    """SHA-256 over its config and its weights."""
    tokenizer: str = ""
    """Whose tokenizer and chat template it was lent, a folder or id; empty: it has its own."""
    devices: list[str] = field(default_factory=list)
    """The GPUs that hold weights, where there are several; `device` is the first of them."""
    attention_backend: str = ""
    """Which of torch's backends computed `sdpa` attention: flash, efficient, cudnn or math, and
    decode's own where it differs from prefill's. Empty where it is not known."""

    slow_kernel: str = ""
    """Why figures of its speed mislead, and the cure; empty where its kernel is a fast one."""

    @property
    def attention_used(self) -> str:
        """The attention implementation, with torch's backend: `sdpa (flash)`."""
        return self.attention + (f" ({self.attention_backend})" if self.attention_backend else "")

    @property
    def where(self) -> str:
        """Its device, or its GPUs: `cuda:0`, `cuda:0+1`."""
        others = [device.partition(":")[2] for device in self.devices[1:]]
        return "+".join([self.device, *others])


def loops_differ(a: Resolved | None, b: Resolved | None) -> bool:
    """Whether both were decoded here, by different loops or steps.

    A ratio of their speeds then compares these as well, and not the quantization alone.
    """
    if a is None or b is None or a.device in SERVERS or b.device in SERVERS:
        return False
    return a.decode != b.decode


@dataclass(frozen=True)
class Ledger:
    """Memory of one worker, split as far as it is known; -1 is "not known", never 0.

    On CUDA the parts are device memory and `process` is filled in by NVML, outside the worker.
    On the CPU `process` is resident memory and the allocator's figures are not known.
    `other_live` is allocated minus weights minus KV cache; `slack` reserved minus allocated.
    `overhead` is what of the weights is the quantization's own, by kind: scales, zeros, codebook,
    indices. `peak` is the highest `process` (on CUDA: reserved) so far, `peak_at_ns` when it was
    first seen: it may have been anywhere since the reading before. The parts are those of all GPUs
    together; where there are several, `device` is the first, and weights and what torch reserved
    are told for each.
    """

    device: str
    weights: int
    weights_by_dtype: dict[str, int]
    kv_cache: int
    other_live: int
    slack: int
    non_torch: int
    process: int
    peak: int
    at_ns: int
    overhead: dict[str, int] = field(default_factory=dict)
    peak_at_ns: int = -1
    weights_by_device: dict[str, int] = field(default_factory=dict)
    reserved_by_device: dict[str, int] = field(default_factory=dict)

    @property
    def devices(self) -> list[str]:
        """Where it runs."""
        return list(self.reserved_by_device) or [self.device]
