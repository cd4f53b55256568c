"""The result of `quantchat score` in a snapshot, which is called a score.

It has the text, how the text was read, and how much the predictions of each model differ from those
of the reference.

Times are in seconds, sizes in bytes, divergences in nats, probabilities from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from quantchat.snapshot.fields import AsObject, Record, Text
from quantchat.statistics.quality import EQUAL_DEPTHS, Divergence, Quantity
from quantchat.wire.jobs import PartDivergence
from quantchat.wire.messages import Failed
from quantchat.wire.variant import ModelInfo

Role = Literal["reference", "floor", "variant"]


class SettingRecord(Record):
    """The text and how it was read. Figures of different settings are not comparable."""

    text: Text
    """Name of the text, or of its file."""
    text_sha256: Text
    """Hash of the text's file."""
    tokens: int
    """Number of tokens of the text that were read, from its beginning."""
    positions: int
    """Number of tokens that were scored."""
    window: int
    """Tokens that a model reads at a time. Each window starts with an empty context."""
    stride: int
    """Tokens from the beginning of one window to that of the next."""
    context: int
    """Number of tokens at the beginning of each window that are read but not scored."""
    begin: Text
    """The BOS token that replaces the first token of each window; empty if there is none."""
    tokenizer_hash: Text
    """`ModelInfo.tokenizer_hash` of the first model that read the text."""
    ids_sha256: Text
    """Hash of the token ids that were read."""
    vocabulary: int
    """Number of logits at each position."""
    window_limit: Text = ""
    """Why the window is shorter than the default; empty if it is not, or if the user set it."""
    passages: int = 0
    """Number of groups of tokens whose errors are taken as independent; 0 in older files, in which
    the windows are these groups."""
    depth_ends: list[int] = Field(default_factory=list)
    """For the KLD by depth (`Divergence.kld_by_depth`) each window is split into parts. These are
    the boundaries of the parts, as token indices in a window. Empty in older files, in which the
    scored tokens were split into four equal parts."""

    @property
    def independent(self) -> int:
        """Number of groups of tokens whose errors are taken as independent."""
        return self.passages or self.positions // max(1, self.window - self.context)

    @property
    def depths(self) -> list[int]:
        """The boundaries of the parts of the KLD by depth, as token indices in a window.

        In older files the scored tokens of a window were split as by `numpy.array_split`: if their
        number is not divisible by four, the first parts are longer by one token.
        """
        if self.depth_ends:
            return self.depth_ends
        size, longer = divmod(self.window - self.context, EQUAL_DEPTHS)
        return [self.context + n * size + min(n, longer) for n in range(EQUAL_DEPTHS + 1)]


class StorageRecord(Record):
    """How the logits of the reference were stored, to compare the other models with them."""

    form: Text
    """Format of each stored logit, e.g. `half precision`."""
    bytes: int
    """Size of the file with the stored logits. The file was removed at the end of the run."""
    kld_mean: float
    """Mean KL(computed ‖ stored): the error of storing the logits."""
    kld_max: float
    """Largest KL(computed ‖ stored) of any position."""


class LocatedRecord(Record):
    """Where a variant's error comes from: its KLD from the reference, part by part.

    For each part, the reference is run with this one part replaced by that of the variant.
    """

    positions: int
    """Number of tokens that were scored for this."""
    whole: float
    """Mean KL(reference ‖ variant) over these tokens, with all parts of the variant."""
    parts: list[AsObject[PartDivergence]]
    """All layers in the model's order, then the modules of the layers with the largest error."""


class ScoredRecord(Record):
    """One model and its figures."""

    formerly: ClassVar[Mapping[str, str]] = {"resolved": "model_info"}

    label: Text
    """Name of the variant in the profile, or of the noise floor."""
    role: Role
    """`floor`: the noise floor, the reference with another attention implementation or dtype."""
    model_info: AsObject[ModelInfo] | None
    """What really ran; None if the model failed."""
    note: Text
    """A note on the model, e.g. that the model it was made from was itself dequantized."""
    perplexity: AsObject[Quantity] | None
    """The perplexity of the text; None if the model failed."""
    divergence: AsObject[Divergence] | None
    """The divergence from the reference; None for the reference itself, or if it is not known."""
    weights: int
    """Bytes of the weights in memory, with the scales and other tensors of the quantization."""
    seconds: float
    """Time for reading the text, without loading the model."""
    failure: AsObject[Failed] | None = None
    """Why the model failed; None if it did not."""
    located: LocatedRecord | None = None
    """Where the model's error comes from; None if that was not asked for, or could not be found."""

    @classmethod
    def failed(cls, label: str, role: Role, failure: Failed) -> ScoredRecord:
        """Return the record of a model that failed."""
        return cls(
            label=label,
            role=role,
            model_info=None,
            note="",
            perplexity=None,
            divergence=None,
            weights=-1,
            seconds=0.0,
            failure=failure,
        )


class PairRecord(Record):
    """One variant compared with another variant as its reference: KL(`seen_from` ‖ `variant`)."""

    seen_from: Text
    """Label of the variant that is the reference here."""
    variant: Text
    """Label of the variant that is compared with it."""
    divergence: AsObject[Divergence]
    """The divergence of `variant` from `seen_from`."""


class ScoreRecord(Record):
    """What `quantchat score` measured."""

    setting: SettingRecord
    """What was read, and how."""
    storage: StorageRecord | None
    """How the reference's logits were stored; None if the reference failed."""
    models: list[ScoredRecord]
    """The reference first, then its noise floor, then the variants in the profile's order."""
    pair: list[PairRecord]
    """The first two variants, each with the other as its reference."""
    unread: list[Text]
    """Labels of the models that were not scored, because the run was stopped."""


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
"""Fields of `SettingRecord` that must be equal for scores to be comparable, and their names."""


def obstacles(scores: Sequence[ScoreRecord]) -> list[str]:
    """Return the reasons why several scores are not comparable, one line each."""
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
    """Return what identifies the reference: its checkpoint or name on the hub, and its dtype."""
    for model in score.models:
        if model.role == "reference" and model.model_info is not None:
            ran = model.model_info
            return f"{ran.checkpoint_hash[:12] or ran.model} in {ran.dtype}"
    return "none"
