"""What a worker reports about its loaded variant: what really runs, and its memory."""

from __future__ import annotations

from dataclasses import dataclass, field

from quantchat.wire.codec import FORMERLY

EXTERNAL_SERVER = "server"
"""The `device` of a variant on a server that was already running. Its memory is not known."""
STARTED_SERVER = "server started here"
"""The `device` of a variant on a server that the worker started. Its memory is that of the worker's
process tree."""
ANY_SERVER = (EXTERNAL_SERVER, STARTED_SERVER)
"""Each `device` of a variant on a server."""


@dataclass(frozen=True)
class ModelInfo:
    """What really runs, read from the loaded model, not from the request."""

    engine: str
    """Engine of the variant, as the profile names it."""
    model: str
    """Folder or hub id from which the variant was loaded."""
    architecture: str
    """Class of the model, or the architecture that the GGUF file names; not known for a server."""
    kernel: str
    """Class (and format) of the quantized linear layers, e.g. `Linear4bit nf4, double quant`."""
    dtype: str
    """Dtype of the computation, e.g. `bfloat16`; for a server `not reported`, or its
    quantization."""
    device: str
    """`cpu`, `cuda:0` and so on; for a server `server` or `server started here`."""
    device_name: str
    """Name of the GPU or the CPU; for a server its host and port."""
    attention: str
    """Attention implementation, e.g. `sdpa`; `not reported` for a server."""
    decode: str
    """Decode mode; for a server, whether it was asked for chats or for completions."""
    context_length: int
    """Largest number of tokens of prompt and answer together; 0 if a server does not report it."""
    chat_template: bool
    """Whether a chat template was used; without one the model continues the prompt."""
    tokenizer_hash: str
    """SHA-256 over the tokenizer's vocabulary and merges: if two hashes are equal, the token ids
    are comparable."""
    threads: int
    """CPU threads when the model was loaded; 0 for a server."""
    libraries: dict[str, str] = field(default_factory=dict)
    """Versions of the libraries that the worker used, by package."""
    parameters: int = 0
    """Number of parameters, counted as before quantization; 0 if not known."""
    checkpoint_hash: str = ""
    """SHA-256 over the names, sizes and headers of the checkpoint's files. Empty for a server,
    except Ollama, which reports the hash of its file of weights."""
    pickle_allowed: bool = False
    """Whether files of pickled weights were allowed to be opened."""
    trusted_code: bool = False
    """Whether the model's own Python code was allowed to run."""
    adapter: str = ""
    """Folder or hub id of the LoRA adapter on the model; empty if there is none."""
    adapter_hash: str = ""
    """SHA-256 over the adapter's config and weights."""
    tokenizer: str = ""
    """Folder or hub id of the tokenizer and chat template that the profile names; empty: the
    model's own."""
    devices: list[str] = field(default_factory=list)
    """The GPUs that hold weights, if several; `device` is the first of them."""
    attention_backend: str = ""
    """torch's backend for `sdpa` attention: flash, efficient, cudnn or math; two names if decode
    and prefill use different ones. Empty if not known."""

    vocabulary_hash: str = ""
    """SHA-256 over each token with its id. Unlike `tokenizer_hash` it does not depend on the
    library that reads the vocabulary. Empty in older snapshots, and for a server."""
    bits_per_weight: float = 0.0
    """Bits in memory ÷ number of weights of the model, after the first forward pass. Both include
    the embeddings; the bits include scales and other data of the quantization. 0 if not known."""
    format_deviation: str = field(default="", metadata={FORMERLY: "not_as_promised"})
    """Which weights are not in the format that the checkpoint or the variant names; empty if all
    are."""
    slow_kernel: str = ""
    """Why the measured speed is misleading, and what to do; empty for a fast kernel."""
    recommended: dict[str, float] = field(default_factory=dict)
    """Sampling settings that the model's own files recommend; they are not used automatically."""
    recommended_by: str = ""
    """The file that recommends them."""
    draft: str = ""
    """What drafts tokens for speculative decoding: folder or hub id of a model, or `prompt-lookup`;
    empty without a draft, and for a server."""

    @property
    def attention_used(self) -> str:
        """Attention implementation with torch's backend: `sdpa (flash)`."""
        return self.attention + (f" ({self.attention_backend})" if self.attention_backend else "")

    @property
    def decoding(self) -> str:
        """Decode mode with the draft: `generate, draft SmolLM2-135M`."""
        draft = self.draft.rstrip("/").rpartition("/")[2]
        return self.decode + (f", draft {draft}" if draft else "")

    @property
    def where(self) -> str:
        """Device, or GPUs: `cuda:0`, `cuda:0+1`."""
        others = [device.partition(":")[2] for device in self.devices[1:]]
        return "+".join([self.device, *others])


def same_vocabulary(a: ModelInfo, b: ModelInfo) -> bool:
    """Return whether a token id means the same for both; False if a vocabulary is not known."""
    if a.vocabulary_hash and b.vocabulary_hash:
        return a.vocabulary_hash == b.vocabulary_hash
    return a.tokenizer_hash == b.tokenizer_hash != ""


def decode_modes_differ(a: ModelInfo | None, b: ModelInfo | None) -> bool:
    """Return whether quantchat decoded both variants, without a server, and in different modes.

    Then a ratio of their speeds compares not only the quantizations but also the decode modes.
    """
    if a is None or b is None or a.device in ANY_SERVER or b.device in ANY_SERVER:
        return False
    return a.decode != b.decode


@dataclass(frozen=True)
class Ledger:
    """The memory of one worker and its parts, in bytes. -1 means not known; 0 never means that.

    On CUDA the parts are device memory, summed over the GPUs. On the CPU the figures of torch's
    allocator are not known.
    """

    device: str
    """The device, or the first of several GPUs, named as in `ModelInfo`."""
    weights: int
    """The weights with the quantization's own data."""
    weights_by_dtype: dict[str, int]
    """`weights` by the dtype they are stored in; by tensor type for GGUF. Empty if not known."""
    kv_cache: int
    """Keys and values of the prompt and answer so far, with those of the draft."""
    other_live: int
    """Memory that torch has allocated, minus weights, draft and KV cache. For llama.cpp: its
    compute buffers."""
    slack: int
    """Memory that torch's allocator has reserved minus memory that it has allocated."""
    non_torch: int
    """`process` minus what torch reserved, e.g. the CUDA context."""
    process: int
    """The whole process: resident memory on the CPU; on CUDA NVML's figure, which the main process
    adds."""
    peak: int
    """Highest value so far of `process`; on CUDA, of the memory that torch has reserved."""
    at_ns: int
    """Time of this reading, in ns of the worker's clock."""
    overhead: dict[str, int] = field(default_factory=dict)
    """Part of `weights` that the quantization adds, by kind: scales, zeros, codebook, indices."""
    peak_at_ns: int = -1
    """Time of the reading that first showed `peak`, in ns of the worker's clock. The peak was
    reached between the reading before and this one."""
    weights_by_device: dict[str, int] = field(default_factory=dict)
    """`weights` by device; empty unless several devices hold them."""
    reserved_by_device: dict[str, int] = field(default_factory=dict)
    """Bytes that torch reserved on each GPU; empty unless several GPUs are used."""
    draft: int = 0
    """Weights of the model that drafts tokens; 0 without one. `weights` does not contain them."""

    @property
    def devices(self) -> list[str]:
        """Devices on which the variant runs."""
        return list(self.reserved_by_device) or [self.device]
