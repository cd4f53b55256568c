"""A score in a snapshot: which models read which text how, and how far each is from the reference.

Times are seconds, sizes bytes, divergences nats, probabilities from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from quantchat.snapshot.fields import AsObject, Record, Text
from quantchat.statistics.quality import Divergence, Quantity
from quantchat.wire.messages import Failed
from quantchat.wire.variant import Resolved

Role = Literal["reference", "floor", "variant"]


class SettingRecord(Record):
    """What was read, and how: figures of two settings that differ are not comparable."""

    text: Text
    """Name of the text, or of its file."""
    text_sha256: Text
    tokens: int
    """Tokens of the text that were read, from its beginning."""
    positions: int
    """Tokens that were scored."""
    window: int
    """Tokens a model reads at a time, each window from nothing."""
    stride: int
    """Tokens from the beginning of one window to that of the next."""
    context: int
    """Tokens at the beginning of each window that are only read."""
    begin: Text
    """The token (BOS) in the place of each window's first; empty where the tokenizer puts none."""
    tokenizer_hash: Text
    ids_sha256: Text
    """Over the token ids that were read."""
    vocabulary: int


class StorageRecord(Record):
    """How the forecasts of a model were kept for the others to be compared with."""

    form: Text
    bytes: int
    """Of one model's file, which was removed at the end."""
    kld_mean: float
    """KL(what the reference said ‖ what was kept of it): the error of keeping it, on average."""
    kld_max: float


class ScoredRecord(Record):
    """One model that was to read the text."""

    label: Text
    role: Role
    """`floor`: the reference again, with another attention implementation or dtype."""
    resolved: AsObject[Resolved] | None
    """What really ran; None where it failed."""
    note: Text
    """What must be known of the model, e.g. that its base was itself dequantized."""
    perplexity: AsObject[Quantity] | None
    divergence: AsObject[Divergence] | None
    """From the reference; None for the reference itself."""
    weights: int
    """Bytes of its weights as they lie in memory, with what the quantization keeps beside them."""
    seconds: float
    """What reading took, without loading."""
    failure: AsObject[Failed] | None = None

    @classmethod
    def failed(cls, label: str, role: Role, failure: Failed) -> ScoredRecord:
        """Of a model that could not read."""
        return cls(
            label=label,
            role=role,
            resolved=None,
            note="",
            perplexity=None,
            divergence=None,
            weights=-1,
            seconds=0.0,
            failure=failure,
        )


class PairRecord(Record):
    """One variant seen from another: KL(`seen_from` ‖ `variant`)."""

    seen_from: Text
    variant: Text
    divergence: AsObject[Divergence]


class ScoreRecord(Record):
    """What `quantchat score` measured."""

    setting: SettingRecord
    storage: StorageRecord | None
    """None where the reference failed."""
    models: list[ScoredRecord]
    """The reference first, then its floor, then the variants in the profile's order."""
    pair: list[PairRecord]
    """The first two variants, each from the other."""
    unread: list[Text]
    """Labels of what was not read, since it was stopped before."""


_COMPARED = (
    ("text_sha256", "text"),
    ("tokens", "token count"),
    ("window", "window"),
    ("stride", "stride"),
    ("context", "unscored context"),
    ("begin", "BOS"),
    ("tokenizer_hash", "tokenizer"),
    ("ids_sha256", "token ids"),
    ("vocabulary", "vocabulary"),
)


def obstacles(scores: Sequence[ScoreRecord]) -> list[str]:
    """Why the figures of several scores cannot be compared, a line each; none where they can."""
    found = []
    for field, name in _COMPARED:
        values = [getattr(score.setting, field) for score in scores]
        if len(set(values)) > 1:
            found.append(f"{name} differs: {_listed(values)}")
    references = [_reference(score) for score in scores]
    if len(set(references)) > 1:
        found.append(f"reference differs: {_listed(references)}")
    return found


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(_short(value) for value in dict.fromkeys(values))


def _short(value: Any) -> str:
    if not isinstance(value, str):
        return str(value)
    return f"{value[:12]}…" if len(value) == 64 else value or "none"


def _reference(score: ScoreRecord) -> str:
    """What tells the reference from another: its checkpoint, or its name on the hub, and dtype."""
    for model in score.models:
        if model.role == "reference" and model.resolved is not None:
            ran = model.resolved
            return f"{ran.checkpoint_hash[:12] or ran.model} in {ran.dtype}"
    return "none"
