"""A loaded model, ready to decode, with a description of what really runs."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from quantchat.common.model_folder import quantization_package
from quantchat.common.versions import versions
from quantchat.wire.messages import LoadModel
from quantchat.wire.variant import ModelInfo
from quantchat.worker.failures import Refused
from quantchat.worker.memory import TensorBytes
from quantchat.worker.model import recommended
from quantchat.worker.model.chat_template import WithChatTemplate
from quantchat.worker.model.contents import Contents, label, unpacked
from quantchat.worker.model.devices import (
    gpus_of,
    processor_name,
    refuse_offloaded,
    room_by_gpu,
    weights_do_not_fit,
)
from quantchat.worker.model.files_check import quantization_method, refuse_pickled
from quantchat.worker.model.vocabulary import vocabulary_hash

_LIBRARIES = (
    "torch",
    "transformers",
    "tokenizers",
    "accelerate",
    "peft",
)
"""Packages whose versions are reported with each engine."""

NO_LIMIT = 1 << 20
"""Context length, in tokens, for models that do not name one."""

_AUTO = ("AutoModelForCausalLM", "AutoModelForImageTextToText", "AutoModelForMultimodalLM")
"""Auto classes of transformers. The first class that supports a model is used. So a model for
images and text is loaded without its vision tower if transformers has a class for its language
model."""


class Loaded(WithChatTemplate):
    """A model in memory with its tokenizer.

    `command` is the command that asked for the model, with the model's local folder as its `model`.
    `model` is a causal language model of transformers (a `torch.nn.Module`). `kernel` names the
    kernel of its quantized layers. `note` is for the user; `slow_kernel` says why the measured
    speed is misleading, and is empty for a fast kernel. `bits` is the number of bits per quantized
    weight in the model's format, without scales and zero points; 0 if unknown.
    """

    def __init__(
        self,
        command: LoadModel,
        model: Any,
        tokenizer: Any,
        *,
        kernel: str,
        note: str = "",
        slow_kernel: str = "",
        bits: float = 0,
    ) -> None:
        self.command = command
        """The command as the main process sent it; its `model` may be an id of the hub."""
        self._folder = command.model
        """The local folder of the model."""
        self.model = model.eval()
        self.tokenizer = tokenizer
        contents = Contents.of(self.model)
        self.kernel = label(kernel, contents)
        self.note = "; ".join(filter(None, (note, contents.not_quantized())))
        """Notes for the user: why no faster kernel is used, which parts are not quantized."""
        self._slow_kernel = slow_kernel
        self._bits = bits
        self._was_quantized = contents.quantized > 0
        self._adapter_hash = ""
        self.tokenizer_backend = tokenizer.backend_tokenizer

    def set_adapter(self, adapter: str, hashed: str) -> None:
        """Store `adapter`, which describes the adapter of the model, and the adapter's hash."""
        self.kernel += f" + {adapter}"
        self._adapter_hash = hashed

    @cached_property
    def device(self) -> str:
        """Device of the weights, e.g. `cuda:0`; the first device if there are several."""
        return str(next(self.model.parameters()).device)

    @cached_property
    def devices(self) -> list[str]:
        """The GPUs that hold weights, if there are several; else empty."""
        gpus = gpus_of(self.model)
        return gpus if len(gpus) > 1 else []

    @property
    def input_device(self) -> Any:
        """The device for token ids."""
        return self.model.get_input_embeddings().weight.device

    @cached_property
    def context_length(self) -> int:
        """Largest number of tokens of prompt and answer together."""
        config = self.model.config.get_text_config()
        return int(getattr(config, "max_position_embeddings", 0) or NO_LIMIT)

    @cached_property
    def end_tokens(self) -> frozenset[int]:
        """Ids that end an answer: those of the generation config and of the tokenizer."""
        named = getattr(self.model.generation_config, "eos_token_id", None)
        ids = named if isinstance(named, list) else [named]
        return frozenset(i for i in [*ids, self.tokenizer.eos_token_id] if i is not None)

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens for which the model computes logits."""
        return int(self.model.config.get_text_config().vocab_size)

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights now. This may change: some kernels repack weights on first use."""
        return TensorBytes.of(self.model).by_dtype.total()

    def model_info(self, decode: str, attention_backend: str = "") -> ModelInfo:
        """Return a description of what really runs.

        `decode` is the decode mode; `attention_backend` is torch's backend for `sdpa` attention,
        empty if unknown.
        """
        import torch

        model, command = self.model, self.command
        config = model.config
        # Count after the first forward pass, in which some libraries repack or unpack the weights.
        contents, tensors = Contents.of(model), TensorBytes.of(model)
        return ModelInfo(
            engine=command.engine,
            model=command.model + (f"@{command.revision}" if command.revision else ""),
            architecture=type(model).__name__,
            kernel=self.kernel,
            dtype=str(model.dtype).removeprefix("torch."),
            device=self.device,
            device_name=_device_name(self.device),
            devices=self.devices,
            attention=str(getattr(config, "_attn_implementation", "") or "unknown"),
            decode=decode,
            context_length=self.context_length,
            chat_template=self.chat_template,
            tokenizer_hash=_tokenizer_hash(self.tokenizer_backend),
            vocabulary_hash=vocabulary_hash(self.tokenizer.get_vocab()),
            threads=torch.get_num_threads(),
            libraries=versions(self._packages()),
            parameters=_parameters(model),
            checkpoint_hash=_checkpoint_hash(self._folder),
            adapter=command.option("adapter", ""),
            adapter_hash=self._adapter_hash,
            tokenizer=command.option("tokenizer", ""),
            attention_backend=attention_backend,
            bits_per_weight=8 * tensors.by_dtype.total() / max(1, contents.weights),
            format_deviation=self._format_deviation(contents, tensors),
            slow_kernel=self._slow_kernel,
            pickle_allowed=command.option("allow_pickle", False),
            trusted_code=command.trust_remote_code,
            recommended=recommended.of_folder(self._folder),
            recommended_by=recommended.GENERATION_CONFIG,
            draft=command.option("draft", ""),
        )

    def _packages(self) -> Iterator[str]:
        """Yield the packages that compute the answers: those of the engine and the checkpoint."""
        yield from _LIBRARIES
        yield from (library.package for library in self.command.needs)
        config: Any = getattr(self.model.config, "quantization_config", None) or {}
        if not isinstance(config, dict):
            config = config.to_dict()
        method = config.get("quant_method", "")
        if package := quantization_package(str(getattr(method, "value", method)).lower()):
            yield package

    def _format_deviation(self, contents: Contents, tensors: TensorBytes) -> str:
        """Return which weights are not in the format that the checkpoint or the variant names.

        Empty if all are. `contents` and `tensors` describe the weights of the model.
        """
        if not contents.quantized:
            gguf = self.command.option("gguf_file", "")
            method = "GGUF" if gguf else quantization_method(self._folder)
            if not method and not self._was_quantized:
                return ""
            return unpacked(self.model, method, self._folder, gguf)[1]
        found = (contents.not_quantized(), contents.dequantized_contents(tensors, self._bits))
        return "; ".join(filter(None, found))


def choose_dtype(name: str) -> Any:
    """Return the argument `dtype` for transformers: "auto", or the `torch.dtype` called `name`."""
    import torch

    return "auto" if name == "auto" else getattr(torch, name)


def auto_class(command: LoadModel, config: Any) -> Any:
    """Return the auto class of transformers that loads a model with this `config`.

    Raises Refused if transformers has no class that generates text for such a model.
    """
    import transformers

    if command.trust_remote_code and _AUTO[0] in (getattr(config, "auto_map", None) or {}):
        return transformers.AutoModelForCausalLM
    for name in _AUTO:
        found = getattr(transformers, name, None)  # transformers 4 lacks some of them
        if found is not None and type(config) in found._model_mapping:
            return found
    named = ", ".join(getattr(config, "architectures", None) or [config.model_type])
    raise Refused(
        "unsupported",
        f"transformers {transformers.__version__} has no class that generates text for {named}",
        "name a language model; if the model has its own code, add trust_remote_code = true",
    )


def load_model(command: LoadModel, device: str, **more: Any) -> Any:
    """Load a transformers model straight onto `device`, from safetensors or GGUF.

    If the setting `device` of `command` is `auto` and no GPU has room for the model, transformers
    fills one GPU after the other. `more` has arguments for `from_pretrained`. Raises Refused for
    pickled weights (unless the option `allow_pickle` is on), for missing tensors, and for weights
    that do not fit on all GPUs together.
    """
    from transformers import AutoConfig

    pickles = command.option("allow_pickle", False)
    if not pickles and "gguf_file" not in more:
        refuse_pickled(command.model, has_option=True)
    if command.attention != "auto":
        more["attn_implementation"] = command.attention
    more["device_map"] = {"": device}
    if several := room_by_gpu(command, device):
        more |= {"device_map": "sequential", "max_memory": several}
    named = {"gguf_file": more["gguf_file"]} if "gguf_file" in more else {}
    config = AutoConfig.from_pretrained(
        command.model, trust_remote_code=command.trust_remote_code, **named
    )
    with _wrong_shapes_refused(), _offloading_refused():
        model, loading_info = auto_class(command, config).from_pretrained(
            command.model,
            trust_remote_code=command.trust_remote_code,
            use_safetensors=None if pickles else True,
            output_loading_info=True,
            **more,
        )
    if absent := sorted(loading_info["missing_keys"]):
        # transformers would fill missing tensors with random numbers, and say so only in its log.
        raise Refused(
            "bad_checkpoint",
            f"{len(absent)} tensors are missing in the checkpoint, the first is {absent[0]}",
            "check that config.json belongs to these weights, or download them again",
        )
    if several:
        refuse_offloaded(model)
    return model


@contextlib.contextmanager
def _offloading_refused() -> Iterator[None]:
    """Within this context, replace the error if weights do not fit on the GPUs.

    The message of transformers for bitsandbytes only names options of transformers.
    """
    try:
        yield
    except ValueError as error:
        if "dispatched on the CPU or the disk" not in str(error):
            raise
        raise weights_do_not_fit() from error


@contextlib.contextmanager
def _wrong_shapes_refused() -> Iterator[None]:
    """Within this context, replace transformers' error for tensors of wrong shapes.

    Its message only names an option of transformers.
    """
    try:
        yield
    except RuntimeError as error:
        if "ignore_mismatched_sizes" not in str(error):
            raise
        raise Refused(
            "bad_checkpoint",
            "tensors in the checkpoint have other shapes than config.json says",
            "check that config.json belongs to these weights, or download them again",
        ) from error


def commonest_class(model: Any, base: type) -> str:
    """Return the name of the commonest class of the modules derived from `base`; "none" if none.

    `base` is the base class of a library's quantized layers, so this names the kernel in use.
    """
    names = Counter(type(m).__name__ for m in model.modules() if isinstance(m, base))
    return names.most_common(1)[0][0] if names else "none"


def _device_name(device: str) -> str:
    if device.startswith("cuda"):
        import torch

        return str(torch.cuda.get_device_name(device))
    return processor_name()


def _parameters(model: Any) -> int:
    """Return the number of parameters of the trained model; 0 if unknown.

    transformers counts the packed weights of bitsandbytes correctly. It does not count the buffers
    of GPTQ and AWQ layers, so the weights of these layers are added here.
    """
    try:
        count = int(model.num_parameters())
    except (AttributeError, NotImplementedError, ValueError):
        return 0
    for layer in model.modules():
        if hasattr(layer, "W_q"):  # HQQ: each element of this parameter holds several weights
            count += layer.in_features * layer.out_features - layer.W_q.numel()
        if hasattr(layer, "qweight"):
            for wide, high in (("in_features", "out_features"), ("infeatures", "outfeatures")):
                count += int(getattr(layer, wide, 0) * getattr(layer, high, 0))
    return count


def _tokenizer_hash(backend: Any) -> str:
    """Return the SHA-256 of vocabulary, merges and added tokens, in a canonical order.

    `backend` is a `tokenizers.Tokenizer`.
    """
    state = json.loads(backend.to_str())
    model = state["model"]
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, dict):
        vocabulary = sorted(vocabulary.items())
    added = sorted((token["id"], token["content"]) for token in state.get("added_tokens") or [])
    body = json.dumps([vocabulary, model.get("merges"), added])
    return hashlib.sha256(body.encode()).hexdigest()


def _checkpoint_hash(model: str) -> str:
    """Return the SHA-256 of the names, sizes and headers of the weight files in a folder.

    Empty if `model` is not a folder. A safetensors header has the name, dtype, shape and offset of
    each tensor; hashing gigabytes of weights at each start would take too long. Of a GGUF file, the
    first 64 MiB are hashed. The content of config.json is hashed too.
    """
    folder = Path(model)
    if not folder.is_dir():
        return ""
    digest = hashlib.sha256()
    for file in sorted([*folder.glob("*.safetensors"), *folder.glob("*.gguf")]):
        digest.update(f"{file.name}:{file.stat().st_size}:".encode())
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            digest.update(stream.read(min(length, 64 * 2**20)))
    config = folder / "config.json"
    if config.is_file():
        digest.update(config.read_bytes())
    return digest.hexdigest()
