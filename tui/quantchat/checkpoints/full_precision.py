"""A model in full precision, as the stages that quantize it need it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from quantchat.checkpoints import headers
from quantchat.checkpoints.cache import read_built
from quantchat.checkpoints.sources import Named, named
from quantchat.checkpoints.stages import BuildContext, Stage
from quantchat.errors import UserError
from quantchat.profile.model import AnyVariant
from quantchat.wire.messages import Load


@dataclass(frozen=True)
class Weights:
    """A model in full precision, made here or named by the user, and how it is loaded."""

    source: Named | Stage
    dtype: str
    device: str
    trusted: bool
    template: Mapping[str, object] = field(default_factory=dict)
    """Variables of its chat template."""
    tokenizer: str = ""
    """Whose tokenizer and chat template are lent to it, an absolute folder or a hub's id."""

    @classmethod
    def of(cls, spec: AnyVariant, source: Named | Stage) -> Weights:
        """The weights of `source`, loaded as `spec` has it."""
        return cls(
            source,
            spec.dtype,
            spec.device,
            spec.trust_remote_code,
            spec.chat_template_kwargs,
            spec.tokenizer or "",
        )

    def made_by(self, stage: Stage) -> Weights:
        """Those that `stage` makes of them, loaded in the same way."""
        return dataclasses.replace(self, source=stage)

    @property
    def needs(self) -> Sequence[Stage]:
        """The stage that makes it, if one does."""
        return (self.source,) if isinstance(self.source, Stage) else ()

    @property
    def inputs(self) -> dict[str, object]:
        """What tells it from other weights, beyond the stage that makes it."""
        model = {"model": self.source.identity()} if isinstance(self.source, Named) else {}
        return {**model, "dtype": self.dtype}

    @property
    def asked(self) -> dict[str, object]:
        """What tells what it says in chats from other chats of it: nothing, as a rule."""
        return {
            **({"chat_template_kwargs": dict(self.template)} if self.template else {}),
            **self.lent,
        }

    @property
    def lent(self) -> dict[str, object]:
        """What tells the tokenizer lent to it from others, if one is. Raises UserError."""
        return {"tokenizer": named(self.tokenizer).identity()} if self.tokenizer else {}

    def load(
        self,
        work: BuildContext,
        engine: str = "transformers",
        options: Mapping[str, object] | None = None,
    ) -> Load:
        """Return the request by which a job loads it, with more `options` of the engine."""
        if isinstance(self.source, Named):
            model, revision = self.source.model, self.source.revision
        else:
            model, revision = str(work.needs[0]), None
        return Load(
            engine,
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
        )

    def remembered(self, work: BuildContext) -> dict[str, object]:
        """What is to be remembered of them with what is made of them: `adapter`, if one is in."""
        made = read_built(work.needs[0]) if isinstance(self.source, Stage) else None
        adapter = made.result.get("adapter") if made else None
        return {"adapter": adapter} if adapter else {}

    def bytes(self, needs: Sequence[Path]) -> int:
        """What it takes on the disk; 0 where that is not known yet."""
        source = self.source if isinstance(self.source, Named) else Named(str(needs[0]))
        try:
            return headers.read(source, fetch=False).bytes
        except UserError:
            return 0


@dataclass(frozen=True)
class FromWeights(Stage):
    """A stage that works on a model in full precision."""

    weights: Weights

    @property
    def needs(self) -> Sequence[Stage]:
        """The weights, if they are made here."""
        return self.weights.needs
