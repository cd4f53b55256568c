"""The profile keys that all variants share, and the base classes of the engines' tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator, model_validator

from quantchat import paths
from quantchat.engines.quantize import Calibration
from quantchat.engines.table import FolderOrHubId, Line, Table, folder_or_hub_id
from quantchat.wire.messages import PROMPT_LOOKUP

DEMO_MODEL = "demo:smollm2-135m-instruct"

EnvironmentName = Annotated[str, Field(pattern=f"^{paths.ENVIRONMENT}$")]

DType = Literal["auto", "bfloat16", "float16", "float32"]


class VariantBase(Table):
    """The keys of a variant that all engines share."""

    if TYPE_CHECKING:
        engine: str  # each engine's own table allows only its name

    label: Line = Field(max_length=60)
    """Name of the column, different for each variant."""
    model: Line
    """A folder (`./…`, `../…`, `~/…` or `/…`, relative to the profile's folder), a Hugging Face id
    (`org/name` or `org/name@revision`), or the demo's model."""
    dtype: DType = "auto"
    """Dtype of the unquantized weights and of the activations; `auto`: the checkpoint's dtype."""
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|cuda(:\d{1,3})?)$", examples=["auto", "cpu", "cuda:0"]
    )
    """Where the model runs. `auto`: on the first GPU with room for the weights, on all GPUs if none
    has room, on the CPU if there is no GPU. `cuda:1`: on this GPU, numbered as by nvidia-smi.
    `cpu`: on the CPU."""
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2", "flex_attention"] = "auto"
    """Attention implementation, as transformers names it."""
    kv_cache: Literal["fp8", "int8", "int4"] | None = Field(None, examples=["fp8"])
    """Store the KV cache in fewer bits, as transformers' quantized caches do: `fp8`, or `int8` and
    `int4` with the package hqq. By default it has the dtype of the activations. The whole cache is
    unpacked for each new token, which saves memory but costs speed. Possible with the decode modes
    `auto`, `eager` and `generate`. The engine gguf has `type_k` and `type_v` instead."""
    draft: FolderOrHubId | None = Field(None, examples=["org/small-model"])
    """What drafts tokens for speculative decoding, transformers' assisted generation: a smaller
    model with the same tokenizer, written like `model`, or `prompt-lookup`, which needs no model
    and proposes the tokens that followed the latest tokens earlier in the chat. The variant's model
    checks several drafted tokens in one pass. The decode mode is then `generate`."""
    draft_tokens: int | None = Field(None, ge=1, le=100, examples=[5])
    """Most tokens to draft for one pass. Default as in transformers: 20 with a draft model, which
    stops earlier if it is unsure, and 10 with `prompt-lookup`."""
    decode: Literal["auto", "generate", "eager", "compile", "graph"] = "auto"
    """How tokens are decoded. `generate`: the loop of transformers. `eager`: the native loop of
    quantchat. `compile`: the native loop with torch.compile. `graph`: the native loop with its step
    captured as a CUDA graph. `auto`: the fastest mode with the same results, usually `graph` on a
    GPU and `eager` on a CPU."""
    python: Line | None = Field(None, examples=["~/venvs/other/bin/python"])
    """Another Python interpreter that runs this variant, with other library versions. A path with a
    slash is relative to the profile's folder; a name without a slash is looked up on PATH."""
    env: EnvironmentName | None = Field(None, examples=["auto-gptq"])
    """An environment made by `quantchat env create`, instead of `python`."""
    chat_template_kwargs: dict[str, bool | int | str] = Field(
        {}, examples=[{"enable_thinking": False}]
    )
    """Variables of the model's chat template, e.g. `{ enable_thinking = false }` for a reasoning
    model. They are also sent to servers (vLLM, SGLang and llama.cpp use them)."""
    thought_marks: list[Annotated[str, Field(max_length=100)]] | None = Field(
        None, min_length=2, max_length=2, examples=[["<think>", "</think>"]]
    )
    """The texts before and after the thoughts in the model's output, if quantchat does not find
    them in its tokenizer and chat template. For a server, make the first text empty if the chat
    template itself opens the thoughts of each answer; for a local model quantchat finds that
    out."""
    tokenizer: FolderOrHubId | None = Field(None, examples=["org/name"])
    """Another model whose tokenizer and chat template are used instead, written like `model`: for
    example for a checkpoint that was published without a chat template."""
    trust_remote_code: bool = False
    """Let the model's repository run its own Python code. Off by default: such code can do anything
    that you can."""

    @model_validator(mode="after")
    def _one_interpreter(self) -> VariantBase:
        if self.python and self.env:
            raise ValueError("`python` and `env` both name an interpreter; leave one out")
        return self

    @model_validator(mode="after")
    def _a_loop_that_takes_the_cache(self) -> VariantBase:
        if self.kv_cache and self.decode in ("compile", "graph"):
            raise ValueError(
                f'decode = "{self.decode}" uses a KV cache that cannot be quantized; leave out'
                " `decode` or `kv_cache`"
            )
        return self

    @model_validator(mode="after")
    def _a_loop_that_takes_the_draft(self) -> VariantBase:
        if self.draft and self.decode not in ("auto", "generate"):
            raise ValueError(
                f'decode = "{self.decode}" takes no draft; use decode = "generate", or leave out'
                " `draft`"
            )
        if self.draft and self.kv_cache:
            raise ValueError(
                "from a KV cache in fewer bits the rejected tokens of a draft cannot be removed;"
                " leave out `kv_cache` or `draft`"
            )
        if self.draft_tokens and not self.draft:
            raise ValueError("draft_tokens needs a `draft`")
        return self

    @field_validator("thought_marks")
    @classmethod
    def _has_an_end(cls, value: list[str] | None) -> list[str] | None:
        if value is not None and not value[1]:
            raise ValueError("the second text, which ends the thoughts, must not be empty")
        return value

    @property
    def calibration_table(self) -> Calibration | None:
        """The table `[variants.quantize]`; None unless quantchat builds the checkpoint."""
        return getattr(self, "quantize", None)

    @property
    def draft_model(self) -> str | None:
        """The folder or hub id of the model that drafts tokens; None without such a model."""
        return None if self.draft == PROMPT_LOOKUP else self.draft

    @property
    def decode_mode(self) -> str:
        """The decode mode to load with: `generate` if there is a draft, else the key `decode`."""
        return "generate" if self.draft else self.decode

    @property
    def options(self) -> dict[str, object]:
        """The options for the engine's loader as plain JSON values."""
        shared = {*VariantBase.model_fields, "engine", "quantize", "save_quantized"}
        merged = {"adapter"} if merged_adapter(self) else set()
        found = self.model_dump(exclude={*shared, "merge_adapter", *merged})
        for name in (
            "chat_template_kwargs",
            "thought_marks",
            "tokenizer",
            "kv_cache",
            "draft",
            "draft_tokens",
        ):  # options of every engine
            if given := getattr(self, name):
                found[name] = given
        return found

    @property
    def unsafe_options(self) -> list[str]:
        """Descriptions of the enabled options that can run arbitrary code."""
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
                raise ValueError(f'the only model of this kind is "{DEMO_MODEL}"')
            return value
        return folder_or_hub_id(value)


class AdapterKeys(VariantBase):
    """The keys of a variant whose engine supports LoRA adapters."""

    adapter: FolderOrHubId | None = Field(None, examples=["org/my-qlora-adapter"])
    """A LoRA adapter that PEFT applies to the model: a folder or a Hugging Face id, written like
    `model`. It is applied at run time; the quantized weights stay unchanged."""
    merge_adapter: bool = False
    """Instead merge the adapter into the full-precision weights before they are quantized."""

    @model_validator(mode="after")
    def _something_to_merge(self) -> AdapterKeys:
        if self.merge_adapter and self.adapter is None:
            raise ValueError("merge_adapter needs an `adapter`")
        return self


class AdapterAndPickleKeys(AdapterKeys):
    """The keys of a variant whose engine also opens pickled weights.

    These are the engines that load with transformers.
    """

    allow_pickle: bool = False
    """Open weights in `.bin` or `.pt` files if there are no safetensors. Off by default: opening a
    pickle can run any code, so convert such files, or open only files that you trust."""


def merged_adapter(variant: VariantBase) -> str | None:
    """Return the adapter that is merged into the weights of `variant` before loading, or None."""
    if isinstance(variant, AdapterKeys) and variant.merge_adapter:
        return variant.adapter
    return None
