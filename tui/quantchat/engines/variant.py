"""The keys that all variants of a profile share, and the bases of the engines' tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from quantchat import paths
from quantchat.engines.quantize import Calibration
from quantchat.engines.table import FolderOrHubId, Line, Table, folder_or_hub_id

DEMO_MODEL = "demo:smollm2-135m-instruct"

EnvironmentName = Annotated[str, Field(pattern=f"^{paths.ENVIRONMENT}$")]

DType = Literal["auto", "bfloat16", "float16", "float32"]


class VariantBase(Table):
    """The keys of a variant that all engines share."""

    if TYPE_CHECKING:
        engine: str  # a literal in each engine's own table

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
    thought_marks: list[Annotated[str, Field(max_length=100)]] | None = Field(
        None, min_length=2, max_length=2, examples=[["<think>", "</think>"]]
    )
    """The texts before and after the thoughts in the model's output, where its tokenizer and chat
    template do not show them. The first is empty if the chat template itself opens the thoughts of
    each answer; of a model that is loaded here quantchat sees that."""
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

    @field_validator("thought_marks")
    @classmethod
    def _has_an_end(cls, value: list[str] | None) -> list[str] | None:
        if value is not None and not value[1]:
            raise ValueError("the second text, which ends the thoughts, must not be empty")
        return value

    @property
    def calibrated(self) -> Calibration | None:
        """The settings to build its checkpoint here with calibration; None if it is not built."""
        return getattr(self, "quantize", None)

    @property
    def options(self) -> dict[str, Any]:
        """The engine's own options as plain JSON values."""
        shared = {*VariantBase.model_fields, "engine", "quantize", "save_quantized"}
        merged = {"adapter"} if merged_adapter(self) else set()
        found = self.model_dump(exclude={*shared, "merge_adapter", *merged})
        for name in ("chat_template_kwargs", "thought_marks", "tokenizer"):  # each engine's
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
                raise ValueError(f'the one source of this kind is "{DEMO_MODEL}"')
            return value
        return folder_or_hub_id(value)


class TakesAdapter(VariantBase):
    """The keys of an engine whose models can take a LoRA adapter."""

    adapter: FolderOrHubId | None = Field(None, examples=["org/my-qlora-adapter"])
    """A LoRA adapter to put on the model, through PEFT: a folder or a Hugging Face id, named as
    `model` is. It is computed beside the weights: what is quantized stays as it is."""
    merge_adapter: bool = False
    """Merge the adapter into the weights in full precision instead, before they are quantized."""

    @model_validator(mode="after")
    def _something_to_merge(self) -> TakesAdapter:
        if self.merge_adapter and self.adapter is None:
            raise ValueError("merge_adapter needs an `adapter`")
        return self


class OpensPickles(TakesAdapter):
    """The keys of an engine that loads with transformers, which can open pickled weights."""

    allow_pickle: bool = False
    """Open weights in `.bin` or `.pt` files where there are no safetensors. Off: opening a pickle
    can run any code, so convert them, or trust where they are from."""


def merged_adapter(variant: VariantBase) -> str | None:
    """Return the adapter that is merged into the weights of `variant` before loading, or None."""
    if isinstance(variant, TakesAdapter) and variant.merge_adapter:
        return variant.adapter
    return None
