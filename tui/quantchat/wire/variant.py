"""What a worker reports of its loaded variant: what really runs, and its memory."""

from __future__ import annotations

from dataclasses import dataclass, field

SERVER = "server"
"""The `device` of a variant on another program's server; its memory is not known."""
STARTED_SERVER = "server started here"
"""The same for a server that the worker started: its memory is that of the process tree."""
SERVERS = (SERVER, STARTED_SERVER)


@dataclass(frozen=True)
class Resolved:
    """What really runs, read from the loaded model, not from the request."""

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
    """SHA-256 over the vocabulary and merges: with equal hashes, token ids are comparable."""
    threads: int
    libraries: dict[str, str] = field(default_factory=dict)
    parameters: int = 0
    checkpoint_hash: str = ""
    """SHA-256 over the names, sizes and headers of the checkpoint's files. Empty for a server,
    except Ollama, which reports the hash of its file of weights."""
    pickle_allowed: bool = False
    """Whether pickled weights would have been opened."""
    trusted_code: bool = False
    adapter: str = ""
    """Folder or hub id of the LoRA adapter on the model; empty if there is none."""
    adapter_hash: str = ""
    """SHA-256 over the adapter's config and weights."""
    tokenizer: str = ""
    """Folder or hub id of a lent tokenizer and chat template; empty: the model's own."""
    devices: list[str] = field(default_factory=list)
    """The GPUs that hold weights, if several; `device` is the first of them."""
    attention_backend: str = ""
    """torch's backend for `sdpa` attention: flash, efficient, cudnn or math; two of them where
    decode uses another than prefill. Empty if not known."""

    vocabulary_hash: str = ""
    """SHA-256 over each token with its id, the same for every library that reads this vocabulary.
    Empty in older snapshots, and for a server."""
    bits_per_weight: float = 0.0
    """Bits in memory for each weight of the model, embeddings and the quantization's own data
    included, after the first forward pass. 0 if not known."""
    not_as_promised: str = ""
    """What is not quantized as the format promises, in words and figures; empty if all is."""
    slow_kernel: str = ""
    """Why its speed is misleading, and what to do; empty if its kernel is a fast one."""

    @property
    def attention_used(self) -> str:
        """Attention implementation with torch's backend: `sdpa (flash)`."""
        return self.attention + (f" ({self.attention_backend})" if self.attention_backend else "")

    @property
    def where(self) -> str:
        """Device, or GPUs: `cuda:0`, `cuda:0+1`."""
        others = [device.partition(":")[2] for device in self.devices[1:]]
        return "+".join([self.device, *others])


def same_tokens(a: Resolved, b: Resolved) -> bool:
    """Return whether the token ids of both mean the same; False if one is unknown."""
    if a.vocabulary_hash and b.vocabulary_hash:
        return a.vocabulary_hash == b.vocabulary_hash
    return a.tokenizer_hash == b.tokenizer_hash != ""


def loops_differ(a: Resolved | None, b: Resolved | None) -> bool:
    """Return whether quantchat decoded both, in different modes.

    A ratio of their speeds then compares the decode modes too, not only the quantization.
    """
    if a is None or b is None or a.device in SERVERS or b.device in SERVERS:
        return False
    return a.decode != b.decode


@dataclass(frozen=True)
class Ledger:
    """Memory of one worker in bytes, split as far as it is known; -1 means not known, never 0.

    On CUDA the parts are device memory; the program fills in `process` from NVML. On the CPU
    `process` is resident memory, and the allocator's figures are not known. `other_live` is
    allocated - weights - KV cache; `slack` is reserved - allocated. `overhead` is the part of the
    weights that the quantization adds, by kind: scales, zeros, codebook, indices. `peak` is the
    highest `process` (on CUDA: reserved) so far; `peak_at_ns` is the time of the reading that
    first showed it, so it was reached between that reading and the one before. With several GPUs
    the parts are sums over all, `device` is the first GPU, and weights and reserved memory are also
    given for each.
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
        """Devices it runs on."""
        return list(self.reserved_by_device) or [self.device]
