"""The base class of engine declarations.

An engine is one object of a subclass of `Engine`. Class attributes state facts about the engine;
methods compute facts about a variant from its profile table. All other code asks the declaration
(`registry.engine_of(spec)`) and never compares engine names.

A subclass declares only the facts that differ from the defaults. The defaults suit an engine that
quantizes a model in full precision while transformers loads it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeAlias, TypeVar, get_args

from quantchat.common.kv_cache import KV_CACHES
from quantchat.common.memory_rules import bucket
from quantchat.engines.variant import VariantBase
from quantchat.estimate.model_files import ModelFiles
from quantchat.estimate.weights import Weights, as_stored, unquantized
from quantchat.wire.library import FolderReader, Library

if TYPE_CHECKING:
    from quantchat.wire.messages import Sampling

Table = TypeVar("Table", bound=VariantBase)
"""The engine's profile table."""


@dataclass(frozen=True)
class Method:
    """A quantization method for models in full precision; `--with` and `quantize` take its name."""

    name: str
    label: str
    """Label of a variant that uses the method."""
    keys: Mapping[str, Any] = field(default_factory=dict)
    """Keys that a variant needs for the method, apart from `engine` and `model`."""
    saved: Mapping[str, Any] | None = None
    """Keys that a variant needs in addition so that its checkpoint is saved in the cache; empty if
    it is saved without further keys. None if the method cannot save a checkpoint."""
    calibrated: bool = False
    """Whether the method needs calibration, which the table `[variants.quantize]` describes."""
    made_with: tuple[Library, ...] = ()
    """Libraries that build a checkpoint; empty if the libraries that load it also build it."""


Capability: TypeAlias = "tuple[int, int]"
"""The compute capability of a GPU, such as (8, 9)."""


class Engine(Generic[Table]):
    """The declaration of an engine: facts that need no import of the engine's libraries."""

    variant_table: type[Table]
    """The pydantic model of a table `[[variants]]` of this engine. Its field `engine` is a literal:
    the engine's name."""
    summary: str
    """What the engine loads, in one line for the profile template."""
    example: ClassVar[Mapping[str, str]] = {}
    """Keys that the shortest valid table needs, apart from `label`, `engine` and `model`."""
    loader: str
    """Dotted name of the worker's module with `load`; imported in the worker, never here."""
    libraries: tuple[Library, ...] = ()
    """Libraries that the loader imports, apart from torch and transformers."""
    reader: FolderReader = FolderReader()
    """How the engine's library reads a model's folder."""
    environments: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Key: name of an environment; value: tested requirements, which `quantchat env create NAME`
    installs unless it is given a file of requirements."""
    methods: tuple[Method, ...] = ()
    """The quantization methods of the engine."""
    checkpoints: frozenset[str] = frozenset()
    """Values of `quant_method` in a checkpoint's config for which quantchat chooses this engine.

    For any other value it chooses the engine with `is_baseline`, plain transformers.
    """
    stage: str = ""
    """`module:function`. The function gets a model's unquantized weights and the variant's table,
    and returns the `quantchat.checkpoints.stages.Stage` that quantizes the model. Empty if the
    engine builds no checkpoints."""
    idle_worker_bytes: int = 500_000_000
    """Resident memory, in bytes, of a worker process that has imported the engine's libraries but
    has not loaded a model."""
    is_server: bool = False
    """Whether a server runs the model, so that the model's files and memory are unknown."""
    is_baseline: bool = False
    """Whether the engine loads models unquantized, as references: plain transformers."""
    only_quantized: bool = False
    """Whether the engine loads only quantized checkpoints, so that a full-precision model must be
    quantized first."""
    spreads: bool = True
    """Whether the engine can spread a model over several GPUs if one is too small."""
    selects_attention: bool = True
    """Whether the profile can choose the attention implementation."""
    runs_gguf: bool = False
    """Whether the engine computes with the quantized weights of a GGUF file as they are."""
    pads_cache: bool = True
    """Whether quantchat's own loop (`worker/decode/native_loop.py`) decodes the engine's models: it
    allocates KV caches in steps, so that they are longer than the chat."""

    @property
    def name(self) -> str:
        """The name of the engine, the value of `engine` in a profile."""
        (name,) = get_args(self.variant_table.model_fields["engine"].annotation)
        return str(name)

    # ------------------------------------------------------------ a variant

    def label(self, spec: Table) -> str:
        """Return a short description of `spec` for its column's label."""
        found = [method.label for method in self.methods if _uses(spec, method)]
        return found[0] if found else self.name

    def starts_from_base(self, spec: Table) -> bool:
        """Return whether `model` of `spec` is a model to quantize, not a finished checkpoint."""
        if self.only_quantized:
            return spec.calibration_table is not None
        return not (self.is_baseline or self.is_server)

    def is_saved(self, spec: Table) -> bool:
        """Return whether `spec` loads a checkpoint that quantchat builds (`stage`) and caches."""
        return spec.calibration_table is not None

    def gguf_file(self, spec: Table) -> str:
        """Return which GGUF file `spec` loads, in a form for `gguf.choose_file`; empty if none."""
        return ""

    def needs(self, spec: Table) -> tuple[Library, ...]:
        """Return the libraries that loading `spec` imports, apart from torch and transformers."""
        of_cache = KV_CACHES[spec.kv_cache].library if spec.kv_cache else None
        known = {library.module for library in self.libraries}
        if of_cache is None or of_cache.module in known:
            return self.libraries
        return (*self.libraries, of_cache)

    def is_installed(self) -> bool:
        """Return whether this interpreter has the engine's libraries."""
        return all(importlib.util.find_spec(library.module) for library in self.libraries)

    def load_options(self, spec: Table, sampling: Sampling | None) -> dict[str, object]:
        """Return `LoadModel.options`, the loader's own options, as plain JSON values.

        `sampling` is the sampling of the answers to come, or None if unknown. Raises UserError.
        """
        return spec.options

    def contacts(self, spec: Table) -> list[str]:
        """Return the programs and hosts that `spec` starts or contacts, one line each."""
        return []

    def cautions(self, spec: Table, *, cuda: bool) -> list[str]:
        """Return warnings about the speed of `spec` on a GPU (`cuda`) or CPU, one line each."""
        return []

    # ------------------------------------------------------------ memory

    def loaded_dtype(self, spec: Table, files: ModelFiles, *, cuda: bool) -> str:
        """Return the dtype of unquantized weights and activations, by torch's name."""
        return self.auto_dtype(files, cuda=cuda) if spec.dtype == "auto" else spec.dtype

    def auto_dtype(self, files: ModelFiles, *, cuda: bool) -> str:
        """Return the dtype of unquantized weights and activations for `dtype = "auto"`."""
        return files.dtype or files.commonest_float

    def weights(
        self, spec: Table, files: ModelFiles, element_bytes: int, *, cuda: bool, avx512_bf16: bool
    ) -> Weights:
        """Return the size of the loaded weights of `spec`, computed from `files`.

        `element_bytes` is the size of an unquantized element in bytes. `avx512_bf16` says that this
        processor has the AVX512-BF16 instructions, for which bitsandbytes repacks 4-bit weights.
        """
        if files.quantization is not None:
            return as_stored(files.tensors)
        return unquantized(files.tensors, element_bytes)

    def dequantizes(
        self, spec: Table, files: ModelFiles, *, cuda: bool, capability: Capability | None
    ) -> str:
        """Return the format that the library dequantizes while it loads `files`; empty if none.

        The library dequantizes if the device has no kernel for the format. `capability` is the
        compute capability of the GPU, None if it is not known.
        """
        return ""

    def cached_tokens(self, spec: Table, tokens: int) -> int:
        """Return the number of tokens for which the KV cache is allocated if it stores `tokens`."""
        padded = spec.decode_mode != "generate" and self.pads_cache and not spec.kv_cache
        return bucket(tokens) if padded else tokens

    def cached_element(self, spec: Table, element_bytes: int) -> float:
        """Return the size of an element of the KV cache in bytes.

        `element_bytes` is the size of an unquantized element in bytes.
        """
        return KV_CACHES[spec.kv_cache].element(element_bytes) if spec.kv_cache else element_bytes

    def loading(
        self, spec: Table, files: ModelFiles, weights: Weights, element_bytes: int, *, cuda: bool
    ) -> int:
        """Return the bytes needed beyond the weights during loading.

        On a GPU this is one matrix in full precision. On a CPU it is the size of the files, because
        safetensors maps them and their pages stay resident until the system needs the memory.
        """
        return weights.largest * element_bytes if cuda else files.bytes

    def notes(self, spec: Table, files: ModelFiles, dtype: str, *, cuda: bool) -> list[str]:
        """Return notes on the memory estimate, one line each.

        `dtype` is the dtype of unquantized weights.
        """
        return []


def _uses(spec: VariantBase, method: Method) -> bool:
    return all(getattr(spec, key, None) == value for key, value in method.keys.items())
