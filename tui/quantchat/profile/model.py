"""The profile: which variants to compare, how to generate, how to run.

These pydantic models are the one description of the file format: the checks, the JSON Schema for
editors and the documentation of each key come from here.
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, Field, field_validator, model_validator

from quantchat import paths
from quantchat.profile.quantize import Quantize
from quantchat.profile.table import FolderOrHubId, Line, Table, folder_or_hub_id
from quantchat.wire.redaction import names_secret

DEMO_MODEL = "demo:smollm2-135m-instruct"


def _address(value: str) -> str:
    """`value`, if it can be taken apart: a bracket is left open in `http://[::1`."""
    try:
        parts = urlsplit(value.replace("{port}", "1"))
        if not parts.hostname:
            raise ValueError("names no host")
        _ = parts.port
    except ValueError as error:
        raise ValueError(f"is no address: {error}") from None
    return value


Address = Annotated[
    str, Field(pattern=r"^https?://[^\s@]+$", max_length=2000), AfterValidator(_address)
]
"""Of a server, without a login."""

EnvironmentName = Annotated[str, Field(pattern=f"^{paths.ENVIRONMENT}$")]


class Generation(Table):
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


class Run(Table):
    """How the variants share the machine, and how often a measurement is repeated."""

    order: Literal["together", "in-turn"] = "together"
    """`together`: both decode at once (contended). `in-turn`: one at a time (may be quoted)."""
    warmup: int = Field(1, ge=0, le=100)
    """Prompts answered and thrown away before measuring."""
    rounds: int = Field(5, ge=1, le=10_000)
    """How often each prompt is measured."""
    prompts: list[Annotated[str, Field(pattern=r"\S")]] = Field([], max_length=10_000)
    """What is asked when measuring; empty asks five of quantchat's own."""


DType = Literal["auto", "bfloat16", "float16", "float32"]


class VariantBase(Table):
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
    """`auto` takes the first GPU with room for the weights, or all where none has, or the CPU where
    there is none; `cuda:1` names a GPU, counted as nvidia-smi does; `cpu` keeps off it."""
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
    chat_template_kwargs: dict[str, bool | int | str] = Field(
        {}, examples=[{"enable_thinking": False}]
    )
    """Variables of the model's chat template, e.g. `{ enable_thinking = false }` for one that would
    think aloud first. A server is sent them, as vLLM, SGLang and llama.cpp take them."""
    tokenizer: FolderOrHubId | None = Field(None, examples=["org/name"])
    """A model whose tokenizer and chat template to take in place of this model's own, named as
    `model` is: for a checkpoint that was published without its chat template, say."""
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
        merged = {"adapter"} if merged_adapter(self) else set()
        found = self.model_dump(exclude={*shared, "merge_adapter", *merged})
        for name in ("chat_template_kwargs", "tokenizer"):  # each engine's, where there are any
            if given := getattr(self, name):
                found[name] = given
        return found

    @property
    def unsafe_options(self) -> list[str]:
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
        return folder_or_hub_id(value)


class _TakesAdapter(VariantBase):
    """An engine whose models take a LoRA adapter."""

    adapter: FolderOrHubId | None = Field(None, examples=["org/my-qlora-adapter"])
    """A LoRA adapter to put on the model, through PEFT: a folder or a Hugging Face id, named as
    `model` is. It is computed beside the weights: what is quantized stays as it is."""
    merge_adapter: bool = False
    """Merge the adapter into the weights in full precision instead, before they are quantized."""

    @model_validator(mode="after")
    def _something_to_merge(self) -> _TakesAdapter:
        if self.merge_adapter and self.adapter is None:
            raise ValueError("merge_adapter needs an `adapter`")
        return self


class _OpensPickles(_TakesAdapter):
    """An engine that loads through transformers, which opens pickled weights too."""

    allow_pickle: bool = False
    """Open weights in `.bin` or `.pt` files where there are no safetensors. Off: opening a pickle
    can run any code, so convert them, or trust where they are from."""


def merged_adapter(variant: VariantBase) -> str | None:
    """The adapter that is merged into the weights of `variant` before it is loaded, if one is."""
    if isinstance(variant, _TakesAdapter) and variant.merge_adapter:
        return variant.adapter
    return None


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
    """A kernel by GPTQModel's name: marlin, exllama_v2, triton, torch, … `auto`: on a GPU the first
    of these that suits the checkpoint and can be compiled, on a CPU GPTQModel's own choice."""
    quantize: Quantize | None = None
    """Present: the model is quantized first, and the checkpoint kept in the cache."""

    @model_validator(mode="after")
    def _merges_before_it_is_quantized(self) -> Gptq:
        if self.merge_adapter and self.quantize is None:
            raise ValueError(
                "merge_adapter is for a model that is quantized here, [variants.quantize]: into"
                " weights that are quantized already nothing can be merged; without it the adapter"
                " is computed beside them"
            )
        return self


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

    @model_validator(mode="after")
    def _merges_into_no_gguf(self) -> Transformers:
        if self.merge_adapter and self.gguf_file:
            raise ValueError("merge_adapter takes weights in full precision, and no gguf_file")
        return self


class Server(Table):
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
    """Where it answers, up to the path's `/v1`. A query (`?api-version=…`) goes along with each
    request. A key is never part of it: see `key_env`."""
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

    @field_validator("base_url")
    @classmethod
    def _query_without_secrets(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.fragment:
            raise ValueError(
                f"#{parts.fragment} is for browsers: no server is sent it; leave it out"
            )
        for name, _ in parse_qsl(parts.query, keep_blank_values=True):
            if names_secret(name):
                raise ValueError(
                    f"`{name}` in base_url would be saved with each snapshot; name the environment"
                    " variable that holds the key: key_env"
                )
        return value

    @model_validator(mode="after")
    def _nothing_of_the_servers(self) -> OpenAI:
        its_own = ("dtype", "device", "attention", "decode", "tokenizer", "trust_remote_code")
        for name in its_own:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is the server's own matter: tell it there")
        if self.server is None and "{port}" in self.base_url:
            raise ValueError("{port} in base_url is for a server started here, [variants.server]")
        return self


AnyVariant = BitsAndBytes | Gptq | AutoGptq | Transformers | OpenAI

Variant = Annotated[AnyVariant, Field(discriminator="engine")]


class Profile(Table):
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
