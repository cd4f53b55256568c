"""The messages between the main process and a worker, except those of jobs (package `jobs`).

Every message is a frozen dataclass; the module `protocol` turns it into a line of JSON. Times are
nanoseconds of the worker's monotonic clock (`time.perf_counter_ns`), sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from quantchat.wire.codec import FORMERLY, from_json, typed
from quantchat.wire.library import FolderReader, Library
from quantchat.wire.variant import Ledger, ModelInfo

VERSION = 2
"""Version of the protocol, which `Hello` reports."""

NO_ID = -1
"""The token id of a chunk of text from a server, which reports no ids."""


# ---------------------------------------------------------------- what is generated


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen and what ends an answer. The default is greedy, without penalties."""

    temperature: float = 0.0
    """Divide the logits by this; 0 is greedy: always the likeliest token."""
    top_p: float = 1.0
    """Sample from the likeliest tokens: the fewest that have at least this total probability; 1 is
    off."""
    top_k: int = 0
    """Sample from this many of the likeliest tokens; 0 is off."""
    repetition_penalty: float = 1.0
    """Divide the positive logits of tokens of the prompt and the answer by this, and multiply the
    negative ones; 1 is off."""
    seed: int = 0
    """Seed of the sampling."""
    min_p: float = 0.0
    """Sample from tokens with at least this fraction of the likeliest token's probability; 0 is
    off."""
    presence_penalty: float = 0.0
    """Subtract this from the logit of each token that is already in the answer; 0 is off."""
    frequency_penalty: float = 0.0
    """Subtract this from a token's logit for each time it is already in the answer; 0 is off."""
    logit_bias: dict[str, float] = field(default_factory=dict)
    """Values added to the logits of tokens, by token id."""
    stop: list[str] = field(default_factory=list)
    """Texts that end the answer; the answer does not contain the text that ended it."""
    max_thinking_tokens: int = 0
    """Largest number of tokens of thoughts. After these, the mark that ends the thoughts is
    inserted. 0: no limit."""


@dataclass(frozen=True)
class Message:
    """One message of a chat: `role` is system, user or assistant."""

    role: str
    content: str
    thoughts: str = ""
    """The assistant's thoughts before `content`; the chat template decides whether to include
    them."""


# ---------------------------------------------------------------- commands


_T = TypeVar("_T")

PROMPT_LOOKUP = "prompt-lookup"
"""Value of a variant's `draft` for drafts without a draft model: if the latest tokens have occurred
earlier in the chat, the tokens that followed them there are drafted."""


@dataclass(frozen=True)
class LoadModel:
    """Load a variant. `options` are the engine's own settings, named as in the profile."""

    engine: str
    model: str
    options: Mapping[str, object]
    revision: str | None = None
    dtype: str = "auto"
    device: str = "auto"
    attention: str = "auto"
    decode: str = "auto"
    """Decode mode (see `quantchat.worker.decode.modes.choose`)."""
    trust_remote_code: bool = False
    threads: int = 0
    """CPU threads while loading; 0 leaves torch's own choice."""
    loader: str = ""
    """Dotted name of the loader module; empty: the worker's own module with the engine's name."""
    needs: list[Library] = field(default_factory=list)
    """The libraries that the loader imports in addition to torch and transformers."""
    reader: FolderReader = field(default_factory=FolderReader)
    """What the engine's library does with the model's folder, for example whether it loads a vision
    tower: the worker checks that the packages needed for that are installed."""

    def option(self, name: str, default: _T) -> _T:
        """Return the option `name`, or `default` if it is missing or null.

        Raises ProtocolError if it has another type than `default`.
        """
        value = self.options.get(name)
        return default if value is None else typed(f"option {name}", type(default), value)

    @property
    def template_variables(self) -> dict[str, object]:
        """The variables of the chat template that the profile sets."""
        return self.option("chat_template_kwargs", {})

    @property
    def thought_marks(self) -> list[str] | None:
        """The marks around thoughts, if the profile names them."""
        marks = self.options.get("thought_marks")
        return typed("option thought_marks", list[str], marks) if marks else None

    @property
    def sampling(self) -> Sampling:
        """The profile's sampling settings, which are used in trial requests to a server."""
        return from_json(Sampling, self.option("sampling", {}))


@dataclass(frozen=True)
class Generate:
    """Answer a chat, or continue the text of its messages if the model has no chat template."""

    turn: int
    messages: list[Message]
    sampling: Sampling
    max_new_tokens: int
    threads: int = 0
    """CPU threads; 0 does not change their number."""
    ignore_eos: bool = False
    """Whether neither end-of-sequence tokens nor stop strings end the answer, so that its length is
    fixed."""
    fresh: bool = False
    """Start with an empty KV cache and leave it empty, as for each prompt of a measurement."""
    prompt_tokens: int = 0
    """Repeat or cut the encoded prompt to this many tokens; 0: neither."""


END = -1
"""Stands for the last token id of an answer: any of the model's end-of-sequence tokens."""


@dataclass(frozen=True)
class ScoreTokens:
    """Report the log-probabilities of the output tokens `ids` (teacher forcing).

    Generates nothing and leaves the KV cache as it is. Any later command cancels it.
    """

    number: int
    """Number of the request, which its `TokenScores` repeats."""
    messages: list[Message]
    """The chat that `ids` answer."""
    ids: list[int]
    """Token ids; the last one may be `END`."""
    first: int = 0
    """Index of the first token to report; the tokens before it are only context."""
    also: list[int] = field(default_factory=list)
    """Other tokens whose log-probabilities are reported at the position of the last of `ids`."""
    prompt_tokens: int = 0
    """`prompt_tokens` of the `Generate` that was answered."""
    batch: int = 1
    """Size of the batch, in which all sequences are equal; for a server, the number of equal
    requests that are sent at once."""
    text: str = ""
    """For a server: the whole answer, which the server tokenizes again; used in place of `ids`."""
    threads: int = 0
    """CPU threads; 0 does not change their number."""


@dataclass(frozen=True)
class Stop:
    """Stop decoding turn `turn` between two tokens; the answer so far is kept."""

    turn: int


@dataclass(frozen=True)
class StopScoring:
    """Stop the running `ScoreTokens`, if any. Its `TokenScores` then have only a `problem`."""


@dataclass(frozen=True)
class Shutdown:
    """End the worker at once. Closing the command pipe has the same effect."""


# ---------------------------------------------------------------- events


@dataclass(frozen=True)
class Hello:
    """The first message: the worker process runs and has not imported any ML library yet."""

    protocol: int
    pid: int
    python: str


@dataclass(frozen=True)
class Alive:
    """A heartbeat after a time without other events: the interpreter still runs."""


LoadStage = Literal["fetching the model", "importing libraries", "loading weights", "warming up"]
"""Stages of loading a variant, in order, whose times are reported in `Ready`. An engine may report
further stages. Their time counts as loading the weights if they follow that stage, and otherwise as
warm-up."""

FETCHING: LoadStage = "fetching the model"
IMPORTING: LoadStage = "importing libraries"
WEIGHTS: LoadStage = "loading weights"
WARMING_UP: LoadStage = "warming up"


@dataclass(frozen=True)
class Progress:
    """Progress of a stage: `done` of `total`; `total` is 0 if the stage cannot be counted."""

    stage: str
    done: int = 0
    total: int = 0
    detail: str = ""


@dataclass(frozen=True)
class Ready:
    """The variant is loaded: what really runs, its memory, and the load time in seconds."""

    model_info: ModelInfo
    ledger: Ledger
    import_s: float
    """From the start of the process until the libraries were imported, without downloads."""
    weights_s: float
    """Time for loading the weights; for a server that quantchat starts: for starting it."""
    warmup_s: float
    """The rest: warm-up, compiling kernels and so on; for a server: from connecting until its first
    answer."""
    note: str = ""
    """Notes for the user, for example why the variant does not decode in a faster mode."""
    fetch_s: float = 0.0
    """Seconds for downloading, which are not part of the load time."""
    keeps_prompts: bool = False
    """Whether the variant is a server that caches prompts even if a request forbids it."""


@dataclass(frozen=True)
class Note:
    """The `note` of `Ready` has changed, because a server refused something since then."""

    note: str


@dataclass(frozen=True)
class Started:
    """The prompt is tokenized; prefill begins.

    `cached_tokens` of the prompt's tokens are taken from the KV cache of earlier turns.
    """

    turn: int
    received_ns: int
    prompt_tokens: int
    cached_tokens: int


@dataclass(frozen=True)
class Prefilled:
    """Prefill has computed `done` of `total` prompt tokens."""

    turn: int
    done: int
    total: int
    at_ns: int


@dataclass(frozen=True)
class Tokens:
    """Output tokens in order.

    `pieces[i]` is the answer's text that token i completes: "" while a character is incomplete, or
    if the token belongs to the thoughts. `times_ns[i]` is when token i was known on the host.
    """

    turn: int
    ids: list[int]
    pieces: list[str]
    times_ns: list[int]
    thoughts: list[str] = field(default_factory=list)
    """Like `pieces`, for the model's thoughts, which are not part of the answer; empty if these
    tokens have no thoughts."""


@dataclass(frozen=True)
class Drafted:
    """The counts of speculative decoding in a turn, sent before `Finished`."""

    turn: int
    drafted: int
    """Tokens that the draft proposed."""
    accepted: int
    """Drafted tokens that the model accepted."""
    steps: int
    """Forward passes of the model. Each gave the drafted tokens that were accepted, and one token
    of the model's own."""


@dataclass(frozen=True)
class Memory:
    """The memory ledger, sent after each turn, and while decoding at most twice a second."""

    ledger: Ledger


@dataclass(frozen=True)
class Finished:
    """A turn is over.

    `reason`: eos, length, stop (the user asked for it), stop_string, eos_or_stop_string (a server
    does not report which of the two) or context (the context is full).

    `text` is the whole answer decoded at once, without thoughts. If the pieces of `Tokens` differ
    from it, `text` is right: the pieces lack text that was held back at the end, such as an
    incomplete character. For a server, the token counts are the server's own, -1 if it does not
    count.
    """

    turn: int
    reason: str
    output_tokens: int
    text: str
    finished_ns: int
    chunks: int = -1
    """Number of chunks that contained the tokens; -1 if each token was sent by itself."""
    prompt_tokens: int = -1
    """A server's count of the prompt tokens, which comes at the end."""
    cached_tokens: int = 0
    """Prompt tokens that a server took from its prompt cache."""
    thoughts: str = ""
    """The whole of the model's thoughts, without their marks."""
    thought_tokens: int = 0
    """Output tokens that are thoughts or marks around them; -1 if their number is not known."""
    raw: str = ""
    """Thoughts and answer as the model wrote them, with its marks; empty if equal to `text`."""


@dataclass(frozen=True)
class TokenScores:
    """Answer to `ScoreTokens`: log-probabilities in nats, before any sampling setting.

    All lists but `also` run in parallel with `ids[first:]`. For a server they run in parallel with
    its own tokens of `text`, and `pieces` is empty.
    """

    number: int
    logprobs: list[float] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    """Text of each token, decoded alone; empty for `END`."""
    ranks: list[int] = field(default_factory=list)
    """For each token, the number of tokens that were likelier at its position: 0 for the token that
    greedy decoding takes."""
    also: list[float] = field(default_factory=list)
    """Log-probabilities of the tokens in `ScoreTokens.also`."""
    problem: str = ""
    """Why there are no log-probabilities; empty if there are."""


FailureKind = Literal[
    # failures of the machine and the libraries
    "out_of_memory",
    "device_busy",
    "device_failed",
    "gpu_unusable",
    "no_kernel_image",
    "missing_library",
    "no_space",
    "environment",
    # requests that cannot be carried out
    "context_full",
    "bad_checkpoint",
    "bad_calibration",
    "bad_task",
    "unsupported",
    "stopped",
    "fetch_failed",
    # failures of a server
    "server_unreachable",
    "server_silent",
    "server_denied",
    "server_ended",
    "server_refused",
    "server_busy",
    "stream_cut",
    # reported mostly by the main process
    "cannot_start",
    "worker_ended",
    "not_responding",
    "cannot_write",
    "internal",
]


@dataclass(frozen=True)
class Failed:
    """A request or a stage failed. The worker continues to run."""

    kind: FailureKind
    """Kind of the failure. A saved snapshot may have a kind that is no longer listed."""
    reason: str
    """What happened, in one line."""
    hint: str = field(default="", metadata={FORMERLY: "mend"})
    """What the user can try; empty if there is no advice."""
    turn: int = -1
    """Number of the turn that failed; -1 if no turn failed."""
    needed: int = -1
    """Bytes of memory or disk that were needed; -1 if not known."""
    free: int = -1
    """Bytes of memory or disk that were free; -1 if not known."""
