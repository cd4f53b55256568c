"""Describes a model from its small files, before weights are fetched or a library opens them.

`quantchat plan` and the worker use the same description. If several files hold a quantization
config, the description has the config that the loading library would use. This module also finds
models that a library cannot load, or would load wrongly without a warning, and says why.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from quantchat.wire.library import FolderReader

CONFIG = "config.json"
QUANTIZE_CONFIGS = ("quantize_config.json", "quant_config.json")
"""Where GPTQModel and auto-gptq look for the quantization config first, in this order."""
DESCRIBING = (CONFIG, *QUANTIZE_CONFIGS)
"""The files whose parsed JSON a `ModelFolder` needs."""

_ADAPTER = "adapter_config.json"

_COMPARED = ("quant_method", "bits", "group_size", "desc_act", "sym", "format")
"""Settings that decide how packed weights are read: if two files disagree, one of them is wrong."""
_OTHER_NAMES = {
    "w_bit": "bits",
    "q_group_size": "group_size",
    "checkpoint_format": "format",
    "version": "format",
}
"""Key: a name that AutoAWQ or GPTQModel writes; value: the same setting's name in `_COMPARED`."""

_PACKAGES = {
    "aqlm": ("aqlm", "aqlm[gpu,cpu]"),
    "auto-round": ("auto_round", "auto-round"),
    "awq": ("gptqmodel", "gptqmodel"),
    "bitsandbytes": ("bitsandbytes", "bitsandbytes"),
    "compressed-tensors": ("compressed_tensors", "compressed-tensors"),
    "eetq": ("kernels", "kernels"),
    "fouroversix": ("fouroversix", "fouroversix"),
    "fp_quant": ("fp_quant", "fp_quant"),
    "gptq": ("gptqmodel", "gptqmodel"),
    "higgs": ("flute", "flute-kernel"),
    "hqq": ("hqq", "hqq"),
    "quanto": ("optimum.quanto", "optimum-quanto"),
    "quark": ("quark", "amd-quark"),
    "sinq": ("sinq", "sinq"),
    "spqr": ("spqr_quant", "spqr_quant[gpu]"),
    "torchao": ("torchao", "torchao"),
    "vptq": ("vptq", "vptq"),
}
"""Key: a value of `quant_method` in a quantization config (not an engine's name); value: the module
that transformers imports for this method, and the package that pip installs. Source: transformers'
`quantizers/`."""

_FOREIGN = {
    "exl2": "TabbyAPI or ExLlamaV2",
    "exl3": "TabbyAPI or ExLlamaV3",
    "mlx": "MLX, on a Mac",
    "modelopt": "vLLM, SGLang or TensorRT-LLM",
    "nvfp4": "vLLM, SGLang or TensorRT-LLM",
}
"""Key: a quantization that transformers cannot load; value: programs that can load it."""

_NO_DECODERS = (
    "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering",
    "ForMultipleChoice", "ForNextSentencePrediction", "ForPreTraining", "ForImageClassification",
    "ForObjectDetection", "ForSemanticSegmentation", "ForCTC", "ForAudioClassification",
)  # fmt: skip
"""Endings of the class names of models that do not continue text."""

_TIMM = ("timm_wrapper", "timm_backbone", "gemma3n_vision")
"""Parts of a model that transformers builds with the package timm, by their `model_type`."""

_VIDEO = frozenset(("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe"))
"""Model types whose processor has a part for videos, which transformers builds with torchvision.
Only some engines load the processor (`FolderReader.loads_processor`)."""

_FAST_TOKENIZERS = ("tokenizer.json", "vocab.json", "vocab.txt")
"""Files from which the tokenizers library builds a tokenizer without another package."""


@dataclass(frozen=True)
class Problem:
    """Why a model cannot be loaded.

    `kind` is the kind of a `wire.messages.Failed`; `what` and `hint` are for the user.
    """

    kind: Literal["bad_checkpoint", "missing_library", "unsupported"]
    what: str
    hint: str


@dataclass(frozen=True)
class ModelFolder:
    """A model's small files, in a folder or on a hub."""

    bodies: Mapping[str, Mapping[str, Any]]
    """Parsed JSON by file name, of the files of `DESCRIBING` that exist."""
    names: frozenset[str] = field(default_factory=frozenset)
    """Names of all files."""

    @property
    def config(self) -> Mapping[str, Any]:
        """The parsed `config.json`; empty if there is none."""
        return self.bodies.get(CONFIG, {})

    @property
    def quantization(self) -> Mapping[str, Any] | None:
        """The quantization config of a quantized checkpoint; None for a model in full precision.

        It is taken from `config.json`, where transformers looks for it (top level, then the config
        of the text model), else from the first of `QUANTIZE_CONFIGS`. If both exist and disagree,
        `problems` refuses the model.
        """
        return _in_config(self.config) or next((body for _, body in self._other_files()), None)

    def problems(self, reader: FolderReader, *, gguf: bool = False) -> Iterator[Problem]:
        """Yield the reasons why an engine should not load this model.

        `reader` says how the engine's library reads a folder. `gguf` says that the weights and the
        quantization come from a GGUF file.
        """
        if _ADAPTER in self.names:
            yield Problem(
                "bad_checkpoint",
                f"the folder also holds an adapter ({_ADAPTER}), which transformers would apply"
                " without a warning: a second time, if it is merged into the weights",
                "move the adapter's files to a folder of their own; to use the adapter, give that"
                " folder as `adapter`",
            )
        yield from _no_decoder(self.config)
        if not gguf:
            yield from self._quantization_problems(reader)

    def missing_packages(self, reader: FolderReader, *, gguf: bool = False) -> Iterator[Problem]:
        """Yield a problem for each package that the model needs and this interpreter lacks.

        The arguments are as for `problems`. The hint is the command that installs the package.
        """
        wanted: list[tuple[str, str, str]] = []
        if reader.reads_gguf:
            return
        if gguf:
            wanted.append(("a GGUF file", "gguf", "gguf"))
        elif found := self.quantization:
            method = str(found.get("quant_method", "")).lower()
            if method in _PACKAGES and not reader.reads_quantize_config:
                wanted.append((f"its quantization ({method})", *_PACKAGES[method]))
        kinds = {str(part.get("model_type")) for part in _parts(self.config)}
        if kinds & set(_TIMM) and reader.builds_vision:
            wanted.append(("its vision tower", "timm", "timm"))
        if kinds & _VIDEO and reader.loads_processor:
            wanted.append(("its processor, which the engine loads,", "torchvision", "torchvision"))
        if "tokenizer.model" in self.names and self.names.isdisjoint(_FAST_TOKENIZERS):
            for package in ("sentencepiece", "protobuf"):
                module = "google.protobuf" if package == "protobuf" else package
                wanted.append(("its tokenizer (tokenizer.model alone)", module, package))
        for what, module, package in wanted:
            if not _is_installed(module):
                yield Problem(
                    "missing_library",
                    f"{what} needs the package {package}, which this interpreter lacks",
                    f"python -m pip install '{package}'",
                )

    def _other_files(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        return ((name, self.bodies[name]) for name in QUANTIZE_CONFIGS if name in self.bodies)

    def _quantization_problems(self, reader: FolderReader) -> Iterator[Problem]:
        configured = _in_config(self.config)
        others = list(self._other_files())
        for name, other in others:
            if configured is not None and (found := _disagreement(other, configured)):
                key, one, two = found
                yield Problem(
                    "bad_checkpoint",
                    f"{name} says {key} {one}, {CONFIG} says {two}: some libraries read one file,"
                    " some the other, and the wrong file makes the weights garbage",
                    "ask the model's author which file is right, and correct the other; or fetch"
                    " the model again",
                )
        if configured is None and others and not reader.reads_quantize_config:
            yield Problem(
                "unsupported",
                f"only {others[0][0]} says that it is quantized; transformers ignores that file",
                f'set engine = "{_method_named(others[0][1])}"',
            )
        method = str((configured or {}).get("quant_method", "")).lower()
        if not method and isinstance(self.config.get("quantization"), Mapping):
            method = "mlx"  # MLX writes its settings under this key too, and names no method
        if method in _FOREIGN:
            yield Problem(
                "unsupported",
                f"it is quantized for {_FOREIGN[method]} ({method}): transformers cannot load it",
                "serve it there and compare the server (docs/how-to/servers.md), or name the"
                " unquantized model",
            )


def _in_config(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the quantization config that transformers finds in `config.json`, or None.

    Source: transformers' `get_hf_quantizer`.
    """
    text = config.get("text_config")
    for part in (config, text if isinstance(text, Mapping) else {}):
        found = part.get("quantization_config")
        if isinstance(found, Mapping) and found:
            return found
    return None


def _method_named(body: Mapping[str, Any]) -> str:
    """Return the method that a `quantize_config.json` names; a file that names none is GPTQ's."""
    return str(body.get("quant_method") or "gptq")


def _disagreement(one: Mapping[str, Any], two: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """Return the first setting in which two quantization configs differ, with both values."""
    first, second = _settings(one), _settings(two)
    for key in _COMPARED:
        if key in first and key in second and first[key] != second[key]:
            return key, first[key], second[key]
    return None


def _settings(body: Mapping[str, Any]) -> dict[str, str | int]:
    found: dict[str, str | int] = {}
    for name, value in body.items():
        key = _OTHER_NAMES.get(name, name)
        if key in _COMPARED and isinstance(value, str | int | bool):
            found.setdefault(key, value.lower() if isinstance(value, str) else value)
    if "desc_act" in body and _method_named(found) == "gptq":
        found.setdefault("format", "gptq")  # the libraries' default
    return found


def quantization_package(method: str) -> str:
    """Return the package with which transformers loads `quant_method`; empty if none is needed."""
    _, package = _PACKAGES.get(method, ("", ""))
    return package.partition("[")[0]


def _no_decoder(config: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield why the model is no decoder: it is an encoder-decoder, or does not generate text."""
    named = config.get("architectures")
    classes = [str(name) for name in named] if isinstance(named, list) else []
    kind = ", ".join(classes) or str(config.get("model_type", ""))
    if config.get("is_encoder_decoder") is True:
        yield Problem(
            "unsupported",
            f"it is an encoder-decoder ({kind}), and only decoders are compared",
            "name a causal language model",
        )
    elif classes and all(name.endswith(_NO_DECODERS) for name in classes):
        yield Problem(
            "unsupported",
            f"it does not generate text ({kind}): it classifies text, or fills gaps",
            "name a causal language model",
        )


def _parts(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the config and each nested config."""
    yield config
    yield from (part for part in config.values() if isinstance(part, Mapping))


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # its parent package is missing or half imported
        return False
