"""The profile: which variants to compare, how to generate, how to run.

These pydantic models are the one description of the file format: the checks, the JSON Schema for
editors and the documentation of each key come from here.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from quantchat import paths

DEMO_MODEL = "demo:smollm2-135m-instruct"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?(@(?!/|.*\.\.)[\w./-]+)?", re.ASCII)
"""A revision is a place in the hub's cache as well, and never leads out of it."""

_DATA_SET = re.compile(
    r"hub:[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?(:[\w.+\[\]%-]+){0,2}", re.ASCII
)

Line = Annotated[str, Field(min_length=1, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
"""Text on one line, without control characters."""

Address = Annotated[str, Field(pattern=r"^https?://[^\s@]+$", max_length=2000)]
"""Of a server, without a login."""

EnvironmentName = Annotated[str, Field(pattern=f"^{paths.ENVIRONMENT}$")]


def is_path(text: str) -> bool:
    """Whether `text` names a file or folder, and not a Hugging Face id or a command's name."""
    return text.startswith(("/", "./", "../", "~")) or text in (".", "..")


def _folder_or_hub_id(value: str) -> str:
    if not is_path(value) and not _HUB_ID.fullmatch(value):
        raise ValueError(
            "must be a folder, which begins with ./, ../, ~ or /, or a Hugging Face id, "
            "org/name or org/name@revision"
        )
    return value


class _Table(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        defer_build=True,  # each is built as a part of the profile, and most of them nowhere else
        protected_namespaces=(),
    )


class Generation(_Table):
    """How answers are generated. Greedy by default, so that differences are the variants' own."""

    system: str = ""
    """System prompt; empty sends none."""
    max_new_tokens: int = Field(512, ge=1, le=2**20)
    """Longest answer, in tokens."""
    temperature: float = Field(0.0, ge=0, le=10)
    """0 is greedy: always the likeliest token."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Sample from the likeliest tokens that hold this share of probability; 1 is off."""
    top_k: int = Field(0, ge=0)
    """Sample from this many likeliest tokens; 0 is off."""
    repetition_penalty: float = Field(1.0, gt=0, le=10)
    """Divide the logits of tokens already seen by this (CTRL, Keskar et al. 2019); 1 is off."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Seed of the sampling, the same for each variant."""


class Run(_Table):
    """How the variants share the machine, and how often a measurement is repeated."""

    order: Literal["together", "in-turn"] = "together"
    """`together`: both decode at once (contended). `in-turn`: one at a time (may be quoted)."""
    warmup: int = Field(1, ge=0, le=100)
    """Prompts answered and thrown away before measuring."""
    rounds: int = Field(5, ge=1, le=10_000)
    """How often each prompt is measured."""
    prompts: list[Annotated[str, Field(pattern=r"\S")]] = Field([], max_length=10_000)
    """What is asked when measuring; empty asks five of quantchat's own."""


class Quantize(_Table):
    """Ask for a GPTQ checkpoint to be made here first, from the model the variant names."""

    bits: Literal[2, 3, 4, 8] = 4
    """Bits per weight."""
    group_size: int = Field(128, ge=-1, le=2**16)
    """Weights that share one scale; -1 is a whole row. It must divide the layers' widths."""
    desc_act: bool = False
    """Quantize columns in order of falling activation (act-order)."""
    act_group_aware: bool = True
    """Order columns by activation inside what the groups allow, which costs nothing when it runs;
    without effect where `desc_act` is on."""
    sym: bool = True
    """Symmetric quantization, which the fast kernels want."""
    damp_percent: float = Field(0.05, gt=0, lt=1)
    """Damping added to the Hessian's diagonal, as a share of its mean."""
    true_sequential: bool = True
    """Quantize the modules of a layer one after the other, each on what those before it give.
    Off: all at once, and nothing to go on from when it is stopped."""
    calibration: Line | None = Field(None, examples=["./chats.jsonl", "hub:org/name:train:text"])
    """What to calibrate on: a file, plain text or JSONL (`{"messages": […]}` or `{"text": …}` a
    line), or a data set on the Hugging Face hub, `hub:org/name[:split[:column]]`. Without it, the
    model's own chats: its answers to varied prompts, in its template."""
    samples: int = Field(32, ge=1, le=4096)
    """Calibration chats, or pieces of text."""
    sample_tokens: int = Field(160, ge=16, le=8192)
    """Longest calibration answer, or piece of text, in tokens."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Seed of the choice of calibration prompts, or pieces of text."""

    @field_validator("group_size")
    @classmethod
    def _group_size(cls, value: int) -> int:
        if value == 0:
            raise ValueError("must be -1 (a whole row) or a positive number such as 128")
        return value

    @field_validator("calibration")
    @classmethod
    def _file_or_data_set(cls, value: str | None) -> str | None:
        if value is not None and not is_path(value) and not _DATA_SET.fullmatch(value):
            raise ValueError(
                "must be a file, which begins with ./, ../, ~ or /, or a data set, "
                "hub:org/name[:split[:column]]"
            )
        return value

    @property
    def calibration_file(self) -> str | None:
        """The file to calibrate on, if it is one."""
        return self.calibration if self.calibration and is_path(self.calibration) else None


DType = Literal["auto", "bfloat16", "float16", "float32"]


class VariantBase(_Table):
    """What each variant has, whatever its engine."""

    label: Line = Field(max_length=60)
    """Name of the column; each variant its own."""
    model: Line
    """A folder (`./…`, `../…`, `~/…` or `/…`, seen from the profile's own folder), a Hugging Face
    id (`org/name` or `org/name@revision`), or the demo's source."""
    dtype: DType = "auto"
    """Of the weights that are not quantized and of activations; `auto` is the checkpoint's."""
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|cuda(:\d{1,3})?)$", examples=["auto", "cpu", "cuda:0"]
    )
    """`auto` takes CUDA where there is one; `cuda:1` names a GPU; `cpu` keeps off it."""
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2", "flex_attention"] = "auto"
    """Attention implementation, as transformers names it."""
    decode: Literal["auto", "generate", "eager", "compile", "graph"] = "auto"
    """How tokens are decoded. `generate`: transformers' own loop. `eager`: quantchat's, step by
    step. `compile`: its step through torch.compile. `graph`: its step captured as a CUDA graph.
    `auto`: the fastest that computes the same here, a graph on a GPU and eager on a CPU."""
    python: Line | None = Field(None, examples=["~/venvs/other/bin/python"])
    """Another Python interpreter to run this variant under, with other library versions. With a
    slash it is seen from the profile's own folder; without one it is looked up on PATH."""
    env: EnvironmentName | None = Field(None, examples=["auto-gptq"])
    """In place of `python`: an environment that `quantchat env create` made."""
    trust_remote_code: bool = False
    """Let the model's repository run its own Python code. Off: it could do anything you can."""

    @model_validator(mode="after")
    def _one_interpreter(self) -> VariantBase:
        if self.python and self.env:
            raise ValueError("`python` and `env` both name an interpreter; leave one out")
        return self

    @property
    def options(self) -> dict[str, Any]:
        """What the engine alone understands, as plain JSON values."""
        shared = {*VariantBase.model_fields, "engine", "quantize", "save_quantized"}
        return self.model_dump(exclude=shared)

    @property
    def dangers(self) -> list[str]:
        """What it is allowed to do that could run any code, in words: never to be overlooked."""
        found = []
        if self.trust_remote_code:
            found.append("runs the model's own code")
        if getattr(self, "allow_pickle", False):
            found.append("opens pickled weights")
        return found

    @field_validator("model")
    @classmethod
    def _folder_or_id(cls, value: str) -> str:
        if value.startswith("demo:"):
            if value != DEMO_MODEL:
                raise ValueError(f'the one source of this kind is "{DEMO_MODEL}"')
            return value
        return _folder_or_hub_id(value)


class _TakesAdapter(VariantBase):
    """An engine whose models take a LoRA adapter."""

    adapter: Line | None = Field(None, examples=["org/my-qlora-adapter"])
    """A LoRA adapter to put on the model, through PEFT: a folder or a Hugging Face id, named as
    `model` is. It is not merged: the quantized weights stay as they are."""

    @field_validator("adapter")
    @classmethod
    def _adapter_folder_or_id(cls, value: str | None) -> str | None:
        return value and _folder_or_hub_id(value)


class _OpensPickles(_TakesAdapter):
    """An engine that loads through transformers, which opens pickled weights too."""

    allow_pickle: bool = False
    """Open weights in `.bin` or `.pt` files where there are no safetensors. Off: opening a pickle
    can run any code, so convert them, or trust where they are from."""


class BitsAndBytes(_OpensPickles):
    """bitsandbytes: quantized while loading, no calibration."""

    engine: Literal["bitsandbytes"]
    """What loads the model."""
    quant_type: Literal["nf4", "fp4", "int8"] = "nf4"
    """`nf4` and `fp4` are 4-bit (QLoRA, Dettmers et al. 2023), `int8` is LLM.int8()."""
    double_quant: bool = True
    """Quantize the 4-bit scales too: about 0.4 bits per weight less."""
    compute_dtype: DType = "auto"
    """Dtype of the matrix products; `auto` is the variant's dtype."""
    save_quantized: bool = False
    """Save the quantized checkpoint in the cache, and load that from then on: a start reads a
    quarter of the bytes, and quantizes nothing."""


class Gptq(_TakesAdapter):
    """GPTQ through GPTQModel: a finished checkpoint, or one made here first (`quantize`)."""

    engine: Literal["gptq"]
    """What loads the model."""
    kernel: str = Field(
        "auto",
        pattern=r"^[a-z0-9_]+$",
        examples=["auto", "marlin", "exllama_v2", "triton", "torch"],
    )
    """`auto`, or a kernel by GPTQModel's name: marlin, exllama_v2, triton, torch, …"""
    quantize: Quantize | None = None
    """Present: the model is quantized first, and the checkpoint kept in the cache."""


class AutoGptq(VariantBase):
    """GPTQ through auto-gptq, which is archived and wants transformers 4: an environment apart."""

    engine: Literal["auto-gptq"]
    """What loads the model."""
    kernel: Literal["auto", "cuda", "exllama", "exllama_v2", "marlin", "triton"] = "auto"
    """`auto`, or a kernel by auto-gptq's name; on a CPU there is one only."""
    quantize: Quantize | None = None
    """Present: the model is quantized first, by GPTQModel here, and kept in the cache."""

    @model_validator(mode="after")
    def _elsewhere(self) -> AutoGptq:
        if not (self.python or self.env):
            raise ValueError(
                "auto-gptq needs an environment of its own: `quantchat env create auto-gptq`,"
                ' and env = "auto-gptq" here'
            )
        return self


class Transformers(_OpensPickles):
    """Plain transformers: the fp16/bf16 baseline, and each checkpoint it loads by itself."""

    engine: Literal["transformers"]
    """What loads the model."""
    gguf_file: Line | None = Field(None, examples=["model-q4_1.gguf"])
    """Name of the GGUF file inside the model's folder or repository."""

    @field_validator("gguf_file")
    @classmethod
    def _inside(cls, value: str | None) -> str | None:
        if value is not None and (value.startswith("/") or ".." in value.split("/")):
            raise ValueError("must be a file inside the model's folder, such as model-q4_1.gguf")
        return value


class Server(_Table):
    """A server that quantchat starts for this variant, and ends with it."""

    command: list[Line] = Field(min_length=1, examples=[["vllm", "serve", "org/name"]])
    """The program and its arguments; no shell reads them. `{port}` is a free port of this machine,
    here, in `ready` and in the variant's `base_url`."""
    ready: Address | None = Field(None, examples=["http://127.0.0.1:8000/health"])
    """An address that answers once it is ready; by default `/models` below `base_url`."""
    timeout_s: float = Field(600.0, gt=0, le=86400)
    """Longest start, in seconds."""
    env: EnvironmentName | None = Field(None, examples=["vllm"])
    """An environment that `quantchat env create` made: its programs are found first."""


class OpenAI(VariantBase):
    """A server that speaks OpenAI's protocol: vLLM, SGLang, llama.cpp, Ollama."""

    engine: Literal["openai"]
    """What runs the model: a server, here or elsewhere."""
    model: Line
    """The model's name, as the server knows it."""
    base_url: Address = Field(examples=["http://127.0.0.1:8000/v1"])
    """Where it answers, up to the path's `/v1`. A key is never part of it: see `key_env`."""
    key_env: str | None = Field(
        None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=100, examples=["VLLM_API_KEY"]
    )
    """Name of the environment variable that holds the server's key, if it wants one."""
    api: Literal["chat", "completion"] = "chat"
    """`chat`: the server applies the chat template. `completion`: it continues the plain text."""
    timeout_s: float = Field(120.0, gt=0, le=3600)
    """Longest silence, in seconds, before or in the middle of an answer."""
    server: Server | None = None
    """Present: quantchat starts the server itself."""

    @field_validator("model")
    @classmethod
    def _folder_or_id(cls, value: str) -> str:
        return value  # whatever the server calls it

    @model_validator(mode="after")
    def _nothing_of_the_servers(self) -> OpenAI:
        its_own = ("dtype", "device", "attention", "decode", "trust_remote_code")
        for name in its_own:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is the server's own matter: tell it there")
        if self.server is None and "{port}" in self.base_url:
            raise ValueError("{port} in base_url is for a server started here, [variants.server]")
        return self


AnyVariant = BitsAndBytes | Gptq | AutoGptq | Transformers | OpenAI

Variant = Annotated[AnyVariant, Field(discriminator="engine")]


class Profile(_Table):
    """A comparison: two variants or more, of one model as a rule."""

    name: Line = Field(max_length=80)
    """What the start screen and the snapshots call it."""
    description: str = ""
    """A sentence on what is compared, and why."""
    variants: list[Variant] = Field(min_length=2, max_length=32)
    """What is compared, two or more. The screen shows two at a time and can switch which."""
    generation: Generation = Generation.model_construct()
    """How answers are generated."""
    run: Run = Run.model_construct()
    """How the variants share the machine."""

    @field_validator("variants")
    @classmethod
    def _labels_differ(cls, variants: list[Variant]) -> list[Variant]:
        labels = Counter(variant.label for variant in variants)
        for label, count in labels.items():
            if count > 1:
                raise ValueError(f'{count} variants have the label "{label}"; each needs its own')
        return variants
