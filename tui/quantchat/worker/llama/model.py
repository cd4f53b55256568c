"""A GGUF model loaded by llama.cpp, with a description of what really runs."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Any

import llama_cpp as c

from quantchat.common.gguf import TYPES, GgufHeader, parts
from quantchat.common.memory_rules import WEIGHTS_SHARE
from quantchat.common.versions import versions
from quantchat.wire.messages import LoadModel
from quantchat.wire.variant import ModelInfo
from quantchat.worker.failures import Refused
from quantchat.worker.llama.context import Context, Settings
from quantchat.worker.llama.library import Device, LogCapture, build, gpus
from quantchat.worker.llama.tokenizer import LlamaTokenizer
from quantchat.worker.model import recommended
from quantchat.worker.model.chat_template import WithChatTemplate
from quantchat.worker.model.devices import gpu_is_shown, processor_name
from quantchat.worker.model.vocabulary import vocabulary_hash

CUDA_BUILD = (
    "build it for CUDA: CMAKE_ARGS=-DGGML_CUDA=on python -m pip install --force-reinstall"
    " --no-cache-dir --no-binary llama-cpp-python llama-cpp-python"
)

_HEADER = 64 * 2**20
"""Number of bytes at the start of a file that `_checkpoint_hash` reads."""
_NUMBERS = {kind.name: number for number, kind in TYPES.items()}
"""Key: name of a tensor type; value: GGML's number for it."""


class LlamaModel(WithChatTemplate):
    """A model in memory with its tokenizer. The constructor loads it; raises Refused.

    `file` is the first of the model's files; `header` has the headers of all its files together.
    """

    def __init__(self, command: LoadModel, file: Path, header: GgufHeader) -> None:
        self.command = command
        self.header = header
        self._file = file
        self._devices = _devices(command, file)
        layers = command.option("n_gpu_layers", -1)
        self._on_gpu = bool(self._devices) and layers != 0
        captured = LogCapture()
        self.pointer = _loaded(file, command, self._devices if self._on_gpu else [], layers)
        if not self.pointer:
            raise _not_loaded(file, captured.fault)
        if not c.llama_model_has_decoder(self.pointer) or c.llama_model_has_encoder(self.pointer):
            raise Refused(
                "unsupported", "the model is not a decoder; quantchat compares only decoders"
            )
        self.buffers = captured.buffers("model")
        """Bytes of the weights, by the name of GGML's backend, e.g. `CUDA0`."""
        vocabulary = c.llama_model_get_vocab(self.pointer)
        template = header.metadata.get("tokenizer.chat_template")
        own = LlamaTokenizer(vocabulary, template if isinstance(template, str) else "")
        self.own_tokenizer = own
        self.tokenizer: Any = own
        self.tokenizer_backend: Any = own
        self.note = "" if self._on_gpu or layers == 0 else ignored_gpu_note(command.device)

    def use_tokenizer(self, tokenizer: Any) -> None:
        """Use `tokenizer`, a tokenizer of transformers, in place of the model's own.

        Raises Refused if it has more tokens than the model.
        """
        if len(tokenizer) > self.own_tokenizer.size:
            raise Refused(
                "unsupported",
                f"the tokenizer named in the profile has {len(tokenizer)} tokens, more than the"
                f" model's vocabulary of {self.own_tokenizer.size}",
                "name the tokenizer of its base model, or remove `tokenizer` from the profile",
            )
        self.tokenizer, self.tokenizer_backend = tokenizer, tokenizer.backend_tokenizer

    @cached_property
    def settings(self) -> Settings:
        """Settings for the contexts of this model, from the profile's options."""
        command = self.command
        wanted = command.option("n_ctx", 0)
        return Settings(
            type_k=_NUMBERS[command.option("type_k", "f16").upper()],
            type_v=_NUMBERS[command.option("type_v", "f16").upper()],
            context_length=wanted or int(c.llama_model_n_ctx_train(self.pointer)),
            fixed=wanted > 0,
            on_gpu=self._on_gpu,
        )

    def context(self, **more: int) -> Context:
        """Return a new, empty context; see `Context` for `more`."""
        context = Context(self.pointer, self.settings, **more)
        context.set_threads(self.threads)
        return context

    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    """CPU threads of new contexts."""

    @property
    def device(self) -> str:
        """Device of the weights, e.g. `cuda:0`; the first device if there are several."""
        return self._devices[0].place if self._on_gpu else "cpu"

    @property
    def context_length(self) -> int:
        """Largest number of tokens of prompt and answer together."""
        return self.settings.context_length

    @cached_property
    def end_tokens(self) -> frozenset[int]:
        """Ids that end an answer."""
        return self.own_tokenizer.end_tokens

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens for which the model computes logits."""
        return self.own_tokenizer.size

    @cached_property
    def weights(self) -> Counter[str]:
        """Bytes of the tensors, by GGML's name of their type."""
        found: Counter[str] = Counter()
        for tensor in self.header.tensors.values():
            found[tensor.kind.name] += tensor.bytes
        return found

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights."""
        return self.weights.total()

    @property
    def scales(self) -> int:
        """Number of bytes of the weights that are scales and minima of quantized blocks."""
        return sum(tensor.blocks * tensor.kind.scales for tensor in self.header.tensors.values())

    @property
    def weights_by_device(self) -> dict[str, int]:
        """Bytes of the weights on each device, if there are several; else empty."""
        places = {device.name: device.place for device in self._devices}
        found: Counter[str] = Counter()
        for name, size in self.buffers.items():
            found[places.get(name, "cpu")] += size
        return dict(found) if len(found) > 1 else {}

    @property
    def kernel(self) -> str:
        """The kernel of the quantized weights, e.g. `llama.cpp Q4_K (CPU AVX2 FMA)`."""
        sizes = {kind: size for kind, size in self.weights.items() if kind[0] not in "FB"}
        quantized = sorted(sizes, key=lambda kind: -sizes[kind])
        most = [kind for kind in quantized if sizes[kind] > 0.1 * sum(sizes.values())]
        repacked = ", repacked for the CPU" if self.buffers["CPU_REPACK"] else ""
        return f"llama.cpp {' + '.join(most) or 'not quantized'}{repacked} ({build()})"

    def model_info(self, decode: str, attention: str = "") -> ModelInfo:
        """Return a description of what really runs.

        `decode` is the decode mode; `attention` is the attention implementation, empty if unknown.
        """
        metadata, command = self.header.metadata, self.command
        parameters = int(c.llama_model_n_params(self.pointer))
        return ModelInfo(
            engine=command.engine,
            model=command.model + (f"@{command.revision}" if command.revision else ""),
            architecture=f"{metadata.get('general.architecture')} (GGUF)",
            kernel=self.kernel,
            dtype="float32",
            device=self.device,
            device_name=self._devices[0].description if self._on_gpu else processor_name(),
            devices=self._places,
            attention=attention or "llama.cpp",
            decode=decode,
            context_length=self.context_length,
            chat_template=self.chat_template,
            tokenizer_hash=self._tokenizer_hash,
            vocabulary_hash=vocabulary_hash(self.own_tokenizer.get_vocab()),
            threads=self.threads,
            libraries=versions([library.package for library in command.needs]),
            parameters=parameters,
            checkpoint_hash=_checkpoint_hash(self._file),
            bits_per_weight=8 * self.weight_bytes / max(1, parameters),
            tokenizer=command.option("tokenizer", ""),
            recommended=recommended.of_gguf(metadata),
            recommended_by=recommended.GGUF_METADATA,
        )

    @property
    def _places(self) -> list[str]:
        places = [device.place for device in self._devices] if self._on_gpu else []
        return places if len(places) > 1 else []

    @property
    def _tokenizer_hash(self) -> str:
        metadata = self.header.metadata
        kind = [metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")]
        body = json.dumps([sorted(self.own_tokenizer.get_vocab().items()), kind])
        return hashlib.sha256(body.encode()).hexdigest()


# ------------------------------------------------------------ loading


def _devices(command: LoadModel, file: Path) -> list[Device]:
    """Return the GPUs for the weights; an empty list for the CPU.

    With the setting `auto`, these are the first GPU with room for all weights; if no GPU has room,
    all GPUs. Raises Refused if the device does not exist.
    """
    setting = command.device
    if setting == "cpu":
        return []
    found = gpus()
    if setting == "auto":
        needed = sum(part.stat().st_size for part in parts(file))
        fitting = [one for one in found if needed <= WEIGHTS_SHARE * one.free]
        return fitting[:1] or found
    there = {device.place: device for device in found}
    index = int(setting.partition(":")[2] or 0)
    if f"cuda:{index}" not in there:
        if not any(place.startswith("cuda") for place in there):
            raise Refused(
                "unsupported", "the installed llama-cpp-python is built without CUDA", CUDA_BUILD
            )
        raise Refused("unsupported", f"no device {setting}", 'use device = "auto"')
    return [there[f"cuda:{index}"]]


def ignored_gpu_note(setting: str) -> str:
    """Return a note if a variant with this `device` setting ignores a GPU; otherwise empty."""
    if setting == "cpu" or gpus() or not gpu_is_shown():
        return ""
    return f"the GPU is not used: llama-cpp-python is built without CUDA ({CUDA_BUILD})"


def _loaded(file: Path, command: LoadModel, devices: list[Device], layers: int) -> Any:
    """Return llama.cpp's pointer to the loaded model, or None if loading fails."""
    parameters = c.llama_model_default_params()
    # The list of devices ends with NULL. Without a list, llama.cpp would use every GPU.
    listed = (ctypes.c_void_p * (len(devices) + 1))(*[one.pointer for one in devices], None)
    parameters.devices = ctypes.cast(listed, ctypes.c_void_p)
    parameters.n_gpu_layers = layers if devices else 0
    if not command.option("mmap", True):
        parameters.load_mode = c.LLAMA_LOAD_MODE_NONE
    return c.llama_model_load_from_file(str(file).encode(), parameters)


def _not_loaded(file: Path, fault: str) -> Refused:
    if "alloc" in fault or "out of memory" in fault:
        return Refused(
            "out_of_memory",
            f"llama.cpp has no memory for the weights: {fault}",
            "set fewer n_gpu_layers, or use a quantization with fewer bits",
        )
    return Refused(
        "bad_checkpoint",
        f"llama.cpp cannot load {file.name}: {fault or 'see the worker log'}",
        "check that the file is complete; a newer architecture needs a newer llama-cpp-python",
    )


def _checkpoint_hash(file: Path) -> str:
    """Return the SHA-256 over name, size and first `_HEADER` bytes of each of the model's files."""
    digest = hashlib.sha256()
    for part in parts(file):
        digest.update(f"{part.name}:{part.stat().st_size}:".encode())
        with part.open("rb") as stream:
            digest.update(stream.read(_HEADER))
    return digest.hexdigest()
