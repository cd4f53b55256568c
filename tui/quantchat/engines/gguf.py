"""Declare the engine `gguf`: GGUF files, computed by llama.cpp through llama-cpp-python."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from quantchat.common.gguf import ANY, BY_NAME, SUFFIX
from quantchat.engines.autoround import AUTO_ROUND
from quantchat.engines.engine import Engine, Method
from quantchat.engines.gptqmodel import build_note
from quantchat.engines.quantize import QuantizeGguf
from quantchat.engines.table import GgufFile, is_path
from quantchat.engines.variant import VariantBase
from quantchat.estimate.gguf_types import built_files
from quantchat.estimate.model_files import FLOATS, ModelFiles
from quantchat.estimate.weights import Weights
from quantchat.wire.library import FolderReader, Library

GGUF_MAKERS = (
    AUTO_ROUND,
    Library("gguf", "gguf"),
    Library("sentencepiece", "sentencepiece", dependency=False, extra="autoround"),
)
"""Libraries that make a GGUF file; loading it needs none of them."""

CacheType = Literal["f16", "bf16", "f32", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]


class Gguf(VariantBase):
    """A GGUF file, computed by llama.cpp: a finished one, or one built here first (`quantize`)."""

    engine: Literal["gguf"]
    """Computes with llama.cpp, through llama-cpp-python."""
    quantize: QuantizeGguf | None = None
    """If present, a GGUF file of the model is built first, and cached."""
    gguf_file: GgufFile | None = Field(None, examples=["Q4_K_M", "model-q4_k_m.gguf"])
    """The GGUF file in the model's folder or repository: its name, or a quantization that only one
    of its GGUF files has. Not needed if there is only one GGUF file. `model` may name the file
    instead: `org/name:Q4_K_M`, or the path of the file."""
    n_gpu_layers: int = Field(-1, ge=-1, le=10_000)
    """Number of layers on the GPU; llama.cpp counts the output layer too. -1: all layers."""
    n_ctx: int = Field(0, ge=0, le=2**24, examples=[8192])
    """Size of the KV cache in tokens, which limits prompt and answer together. 0: the cache grows
    in steps up to the model's context length."""
    type_k: CacheType = "f16"
    """Type of the keys in the KV cache."""
    type_v: CacheType = "f16"
    """Type of the values in the KV cache. A quantized type needs flash attention, which llama.cpp
    then turns on."""
    mmap: bool = True
    """Map the file into memory (mmap) instead of reading the weights into the memory of the
    process."""

    @model_validator(mode="before")
    @classmethod
    def _file_in_model(cls, given: Any) -> Any:
        """Split `model` into the folder or repository and `gguf_file`, where it names both."""
        model = given.get("model") if isinstance(given, dict) else None
        if not isinstance(model, str):
            return given
        if is_path(model) and model.endswith(SUFFIX):
            path = PurePath(model)
            folder = str(path.parent)
            # The parent of "./x.gguf" is ".", and of "../x.gguf" "..": both pass `is_path`.
            found = {"model": folder, "gguf_file": path.name}
        elif not is_path(model) and ":" in model and not model.startswith("demo:"):
            name, _, which = model.rpartition(":")
            found = {"model": name, "gguf_file": which}
        else:
            return given
        if (given.get("gguf_file") or found["gguf_file"]) != found["gguf_file"]:
            raise ValueError("`model` and `gguf_file` name two files; leave one out")
        return {**given, **found}

    @model_validator(mode="after")
    def _one_file(self) -> Gguf:
        if self.quantize and self.gguf_file:
            raise ValueError(
                "gguf_file names a finished file, and [variants.quantize] builds one; leave one out"
            )
        return self

    @model_validator(mode="after")
    def _no_keys_of_torch(self) -> Gguf:
        for name in ("dtype", "attention", "decode"):
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"remove {name}: it is a setting of torch, and llama.cpp chooses by itself"
                )
        if self.kv_cache:
            raise ValueError(
                "kv_cache is a setting of transformers: set llama.cpp's own types,"
                ' such as type_k = "q8_0" and type_v = "q8_0"'
            )
        if self.draft:
            raise ValueError(
                "draft is a setting of transformers: start llama-server with -md FILE, and name it"
                ' as a server (engine = "openai")'
            )
        if self.trust_remote_code:
            raise ValueError("remove trust_remote_code: a GGUF file has no code")
        return self


class _Engine(Engine[Gguf]):
    variant_table = Gguf
    summary = (
        'a GGUF file (model = "org/name:Q4_K_M" or a file), or one built here, run by llama.cpp'
    )
    example: ClassVar[Mapping[str, str]] = {"gguf_file": "model.gguf"}
    loader = "quantchat.worker.loaders.gguf"
    stage = "quantchat.checkpoints.autoround_stage:stage_of"
    methods = (
        Method(
            "autoround-gguf",
            "AutoRound Q4_K_M",
            saved={},
            calibrated=True,
            made_with=GGUF_MAKERS,
        ),
    )
    libraries = (
        Library(
            "llama-cpp-python",
            "llama_cpp",
            dependency=False,
            install='quantchat env create gguf, and env = "gguf" in the variant; or, for this'
            " interpreter, python -m pip install 'quantchat[gguf]'",
        ),
    )
    reader = FolderReader(builds_vision=False, reads_gguf=True)
    environments: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "gguf": (
            "llama-cpp-python==0.3.36",
            # Build for any CPU with AVX2: what llama.cpp chooses by default crashes on some CPUs
            # with AMX. The environment variable CMAKE_ARGS adds options, e.g. -DGGML_CUDA=on.
            "--config-settings=cmake.args=-DGGML_NATIVE=OFF;-DLLAVA_BUILD=OFF",
            "huggingface_hub>=1",
            "torch>=2.8,<2.14",  # `score` compares logits with it
        )
    }
    idle_worker_bytes = 60_000_000
    selects_attention = False
    runs_gguf = True

    def label(self, spec: Gguf) -> str:
        if spec.quantize:
            return f"AutoRound {spec.quantize.format.upper()}"
        return (spec.gguf_file or "GGUF").removesuffix(SUFFIX)

    def starts_from_base(self, spec: Gguf) -> bool:
        return spec.quantize is not None

    def gguf_file(self, spec: Gguf) -> str:
        return spec.gguf_file or ANY

    def loaded_dtype(self, spec: Gguf, files: ModelFiles, *, cuda: bool) -> str:
        return "float32"  # dtype of the activations between two matrix products

    def weights(
        self, spec: Gguf, files: ModelFiles, element_bytes: int, *, cuda: bool, avx512_bf16: bool
    ) -> Weights:
        if spec.quantize and not _is_gguf(files):
            files = built_files(files, spec.quantize.format)
        packed, plain, scales = 0, 0, 0
        for tensor in files.tensors.values():
            if tensor.dtype in FLOATS:
                plain += tensor.bytes
                continue
            block = BY_NAME[tensor.dtype]
            added = tensor.bytes // block.bytes * block.scales
            packed, scales = packed + tensor.bytes - added, scales + added
        # No matrix is dequantized as a whole, so the largest matrix adds nothing.
        return Weights(packed, plain, {"scales": scales} if scales else {}, 0)

    def cached_tokens(self, spec: Gguf, tokens: int) -> int:
        return spec.n_ctx or super().cached_tokens(spec, tokens)

    def cached_element(self, spec: Gguf, element_bytes: int) -> float:
        kinds = [BY_NAME[name.upper()] for name in (spec.type_k, spec.type_v)]
        return sum(kind.bytes / kind.weights for kind in kinds) / 2

    def loading(
        self, spec: Gguf, files: ModelFiles, weights: Weights, element_bytes: int, *, cuda: bool
    ) -> int:
        # llama.cpp uses the pages of the mapped file as the weights, so loading needs no further
        # memory. For a GPU, the pages only pass through the host's memory.
        return 0

    def notes(self, spec: Gguf, files: ModelFiles, dtype: str, *, cuda: bool) -> list[str]:
        if spec.quantize and not _is_gguf(files):
            return build_note(spec, files, self.auto_dtype(files, cuda=cuda))
        sizes: Counter[str] = Counter()
        for tensor in files.tensors.values():
            sizes[tensor.dtype] += tensor.bytes
        bits = 8 * files.bytes / max(1, sum(t.elements for t in files.tensors.values()))
        kinds = ", ".join(f"{kind} {size / files.bytes:.0%}" for kind, size in sizes.most_common(4))
        return [f"{bits:.2f} bits per weight: {kinds}"] if files.bytes else []


ENGINE = _Engine()


def _is_gguf(files: ModelFiles) -> bool:
    """Return whether `files` are those of a GGUF file, and not of its base model."""
    return any(name.endswith(SUFFIX) for name in files.names)
