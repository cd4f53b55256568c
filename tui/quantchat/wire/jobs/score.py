"""The job that scores a text with a model."""

from __future__ import annotations

from dataclasses import dataclass, field

from quantchat.wire.jobs.job import Job, Workspace
from quantchat.wire.messages import LoadModel
from quantchat.wire.variant import ModelInfo


@dataclass(frozen=True)
class ScoreResult:
    """What a model read, and for how long. The figures are in the job's output folder."""

    model_info: ModelInfo
    tokens: int
    """Number of tokens of the text that were read."""
    positions: int
    """Number of tokens that were scored."""
    context: int
    """Number of tokens at the start of each window that are read but not scored."""
    ids_sha256: str
    """SHA-256 over the token ids."""
    begin: str
    """The token (BOS) that the tokenizer puts first; empty if there is none."""
    vocabulary: int
    """Number of logits at each position; 0 for a server."""
    seconds: float
    """Seconds for reading the text, without loading the model."""
    weights: int
    """Bytes of the model's weights; -1 for a server."""
    likeliest: int = -1
    """Number of tokens for which a server reports probabilities at each position; all other tokens
    are merged into one outcome. 0: the server reports none; -1: a local model, whose logits are all
    known."""
    window: int = 0
    """Length of a window in tokens."""
    window_limit: str = ""
    """Why the window is shorter than `ScoreJob.window`; empty if it is not."""


@dataclass(frozen=True)
class PartDivergence:
    """The error that one part of a quantized model makes alone."""

    name: str
    """The part's name in the model, e.g. `model.layers.3` or `model.layers.3.mlp.down_proj`."""
    layer: bool
    """Whether the part is a whole layer; otherwise it is a module inside a layer."""
    kld: float
    """Mean KL(reference ‖ reference with this part quantized), in nats."""
    error: float
    """Standard error of `kld` over the tokens."""


@dataclass(frozen=True)
class LocateLossResult:
    """Where the error of a quantized model comes from."""

    positions: int
    """Number of tokens that were scored."""
    whole: float
    """Mean KL(reference ‖ variant) over the same tokens, in nats."""
    parts: list[PartDivergence]
    """All layers in the model's order, then the modules of the worst layers."""


@dataclass(frozen=True)
class LocateLossJob(Job[LocateLossResult]):
    """Score a text with one layer of the reference at a time replaced by a quantized model's layer.

    Then do the same with each module of the `worst` worst layers. Both models are in memory at
    once.
    """

    title = "locate"

    load: LoadModel
    """The quantized model."""
    reference: LoadModel
    text: str
    """Path of the text."""
    window: int
    """Length of a window in tokens."""
    tokens: int
    """Tokens of the text to read."""
    workspace: Workspace
    worst: int
    """Number of layers whose modules are replaced one by one: the layers with the largest error."""


@dataclass(frozen=True)
class Fit:
    """What limits the length of a window, besides the text and the model's context length."""

    memory: int = 0
    """Bytes of main memory that are free before the model is loaded; 0: unknown."""
    eager: bool = False
    """Whether the model computes attention scores as whole matrices of window × window."""


@dataclass(frozen=True)
class ScoreJob(Job[ScoreResult]):
    """Let a model read a text, and write a float64 for each scored token into the output folder.

    There is a file for each figure: `nll`, the surprisal in nats; `top`, the id of the likeliest
    token. For each model in `against`: `<name>.forward`, KL(that model ‖ this model), and
    `<name>.backward`, KL(this model ‖ that model), in nats. With `depths`: `<name>.early.forward`
    and `<name>.early.backward`, the same for the tokens of each window before the scored tokens.
    With `keep`: `kept`, KL(computed logits ‖ stored logits), which is the effect of rounding the
    stored logits. The file `windows` has the token ids of all windows as int64. For a server that
    reports no token ids, only `nll` is written.
    """

    title = "score"

    load: LoadModel
    text: str
    """Path of the text."""
    window: int
    """Length of a window in tokens."""
    stride: int
    """Tokens from the start of a window to the start of the next."""
    workspace: Workspace
    fit: Fit | None = None
    """If given, a `window` that is too long is shortened, and the stride with it. None: it is
    refused."""
    depths: bool = False
    """Also compare the tokens before the scored ones, if the windows do not overlap."""
    tokens: int = 0
    """Tokens of the text to read; 0: all."""
    ids_sha256: str = ""
    """The hash that the text's token ids must have; empty: any hash."""
    against: dict[str, str] = field(default_factory=dict)
    """Key: the name of another model, used in the names of the files; value: the file with that
    model's logits of the same tokens."""
    keep: str = ""
    """Name of the file in which the model's own logits are stored; empty: they are not stored."""
    copies: int = 0
    """Number of files of stored logits for which the disk must have space."""
    windows: str = ""
    """For a server: the file `windows` that the reference wrote, whose tokens the server reads."""
