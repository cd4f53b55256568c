"""A model in full precision, i.e. not quantized: the input of the stages that quantize."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quantchat.checkpoints import headers
from quantchat.checkpoints.cache import read_built
from quantchat.checkpoints.sources import ModelName, model_name
from quantchat.checkpoints.stages import BuildContext, Stage
from quantchat.engines.engine import Engine
from quantchat.engines.registry import baseline
from quantchat.errors import UserError
from quantchat.profile.model import AnyVariant
from quantchat.wire.messages import LoadModel


@dataclass(frozen=True)
class Weights:
    """A model in full precision, and its load settings.

    `source` is the name of a model, or the earlier stage that builds the model: by dequantizing the
    demo's GGUF file, or by merging an adapter into a model.
    """

    source: ModelName | Stage
    dtype: str
    device: str
    trusted: bool
    """Whether code from the model's files may run (`trust_remote_code`)."""
    template: Mapping[str, object] = field(default_factory=dict)
    """Variables of the model's chat template."""
    tokenizer: str = ""
    """The model to borrow tokenizer and chat template from: an absolute folder or a hub's id.
    Empty: the model has its own."""

    @classmethod
    def of(cls, spec: AnyVariant, source: ModelName | Stage) -> Weights:
        """Return the weights of `source` with the load settings of `spec`."""
        return cls(
            source,
            spec.dtype,
            spec.device,
            spec.trust_remote_code,
            spec.chat_template_kwargs,
            spec.tokenizer or "",
        )

    def built_by(self, stage: Stage) -> Weights:
        """Return the weights that `stage` builds, with these load settings."""
        return dataclasses.replace(self, source=stage)

    @property
    def needs(self) -> Sequence[Stage]:
        """The stage that builds the model; empty for a model that the user names."""
        return (self.source,) if isinstance(self.source, Stage) else ()

    @property
    def inputs(self) -> dict[str, object]:
        """What identifies the weights: the model, if the user names it, and the dtype.

        If a stage builds the weights, that stage is in `needs` and identifies the model.
        """
        model = {"model": self.source.identity()} if isinstance(self.source, ModelName) else {}
        return {**model, "dtype": self.dtype}

    @property
    def chat_settings(self) -> dict[str, object]:
        """Settings that change the model's chats: template variables and another tokenizer."""
        return {
            **({"chat_template_kwargs": dict(self.template)} if self.template else {}),
            **self.borrowed_tokenizer,
        }

    @property
    def borrowed_tokenizer(self) -> dict[str, object]:
        """The identity of a borrowed tokenizer; empty if there is none. Raises UserError."""
        return {"tokenizer": model_name(self.tokenizer).identity()} if self.tokenizer else {}

    def load(
        self,
        work: BuildContext,
        engine: Engine[Any] | None = None,
        options: Mapping[str, object] | None = None,
    ) -> LoadModel:
        """Return the request with which a job loads the model.

        `engine` loads the model; by default it is the baseline engine, plain transformers.
        `options` are further options for the engine.
        """
        engine = engine or baseline()
        if isinstance(self.source, ModelName):
            model, revision = self.source.model, self.source.revision
        else:
            model, revision = str(work.needs[0]), None
        return LoadModel(
            engine.name,
            model,
            {
                **(options or {}),
                **({"tokenizer": self.tokenizer} if self.tokenizer else {}),
                **({"chat_template_kwargs": dict(self.template)} if self.template else {}),
            },
            revision,
            dtype=self.dtype,
            device=self.device,
            trust_remote_code=self.trusted,
            loader=engine.loader,
            needs=list(engine.libraries),
            reader=engine.reader,
        )

    def inherited(self, work: BuildContext) -> dict[str, object]:
        """Return entries for `made.json` of a checkpoint that is made from these weights.

        They are copied from `made.json` of the weights. The only one is `adapter`, which says which
        adapter was merged; without one, the result is empty.
        """
        built = read_built(work.needs[0]) if isinstance(self.source, Stage) else None
        adapter = built.result.get("adapter") if built else None
        return {"adapter": adapter} if adapter else {}

    def bytes(self, needs: Sequence[Path]) -> int:
        """Return the size of the weights on the disk in bytes; 0 if not known yet."""
        source = self.source if isinstance(self.source, ModelName) else ModelName(str(needs[0]))
        try:
            return headers.read(source, fetch=False).bytes
        except UserError:
            return 0


@dataclass(frozen=True)
class FromWeights(Stage):
    """A stage whose input is a model in full precision."""

    weights: Weights

    @property
    def needs(self) -> Sequence[Stage]:
        """The stage that builds the weights; empty for a model that the user names."""
        return self.weights.needs
