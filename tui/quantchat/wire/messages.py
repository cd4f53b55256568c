"""The messages between quantchat and a worker: JSON, one object a line, UTF-8.

The one module (with `variant` and `strict_json` under it) that both sides import. Commands go to
the worker, events come from it, each over a pipe descriptor of its own: stdout and stderr belong to
the libraries, which print. Every message is a frozen dataclass below; its class name is the `type`
on the wire. Times are nanoseconds of the worker's monotonic clock (`time.perf_counter_ns`), sizes
are bytes.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from dataclasses import dataclass, field
from typing import Any

from quantchat.wire.codec import FORMERLY, ProtocolError, from_json
from quantchat.wire.variant import Ledger, Resolved

VERSION = 1

NO_ID = -1
"""In place of a token's id where a server streams text: there, one entry is one chunk."""


# ---------------------------------------------------------------- what is generated


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. `temperature` 0 is greedy; `top_k` 0 and `top_p` 1 are off."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Message:
    """One message of a chat: `role` is system, user or assistant."""

    role: str
    content: str


# ---------------------------------------------------------------- commands


@dataclass(frozen=True)
class Library:
    """A package that an engine needs in the worker's interpreter."""

    package: str
    """Name of the distribution, as pip and `importlib.metadata` know it."""
    module: str
    """The module that is imported."""
    dependency: bool = True
    """Whether installing quantchat installs it."""
    install: str = ""
    """The command that installs it; empty: `python -m pip install` and the package."""

    @property
    def command(self) -> str:
        """The command that installs it."""
        return self.install or f"python -m pip install '{self.package}'"


@dataclass(frozen=True)
class Load:
    """Load a variant. `options` are the engine's own, as the profile names them."""

    engine: str
    model: str
    options: dict[str, Any]
    revision: str | None = None
    dtype: str = "auto"
    device: str = "auto"
    attention: str = "auto"
    decode: str = "auto"
    """Decode mode; `quantchat.worker.decode.modes` knows them."""
    trust_remote_code: bool = False
    threads: int = 0
    """CPU threads while loading; 0 leaves torch's own choice."""
    loader: str = ""
    """Dotted name of the module that loads it; empty: the worker's own of the engine's name."""
    needs: list[Library] = field(default_factory=list)
    """What the loader imports beside torch."""


@dataclass(frozen=True)
class Generate:
    """Answer a chat, or continue `prompt` where the model has no chat template."""

    turn: int
    messages: list[Message]
    sampling: Sampling
    max_new_tokens: int
    threads: int = 0
    ignore_eos: bool = False
    fresh: bool = False
    """Begin with an empty KV cache and keep nothing: in a measurement each prompt stands alone."""
    prompt_tokens: int = 0
    """Repeat or cut the encoded prompt to this many tokens; 0 leaves it as it is."""


END = -1
"""In place of a token id: the answer ends here, by whichever of the model's end tokens."""


@dataclass(frozen=True)
class ScoreTokens:
    """Tell how likely the output tokens `ids` are, each after those before it (teacher forcing).

    Nothing is said and nothing kept. It gives way, unfinished, to any command that comes after it.
    """

    number: int
    messages: list[Message]
    """The chat that `ids` answer."""
    ids: list[int]
    """`END` may stand for the last one."""
    first: int = 0
    """Index of the first one to tell of; those before are only context."""
    also: list[int] = field(default_factory=list)
    """Tokens to tell of in the place of the last one."""
    prompt_tokens: int = 0
    """As in the request that was answered."""
    batch: int = 1
    """Rows computed at once, all alike."""
    threads: int = 0


@dataclass(frozen=True)
class Stop:
    """Stop decoding turn `turn` between two tokens; what was said is kept."""

    turn: int


@dataclass(frozen=True)
class Prepare:
    """Do one stage of making a checkpoint: `job` names a module in `worker/jobs`."""

    job: str
    options: dict[str, Any]


@dataclass(frozen=True)
class Shutdown:
    """End in good order. The end of the command pipe means the same, at once."""


# ---------------------------------------------------------------- events


@dataclass(frozen=True)
class Hello:
    """First message: the process is up, before any ML import."""

    protocol: int
    pid: int
    python: str


@dataclass(frozen=True)
class Alive:
    """Nothing else was to be said for a while: the process runs, and so does its interpreter."""


@dataclass(frozen=True)
class Progress:
    """How far a stage is. `total` 0 means that it cannot be counted."""

    stage: str
    done: int = 0
    total: int = 0
    detail: str = ""


@dataclass(frozen=True)
class Ready:
    """The variant is loaded. Seconds since the process began, split as DESIGN names them."""

    resolved: Resolved
    ledger: Ledger
    import_s: float
    weights_s: float
    warmup_s: float
    note: str = ""
    """What the user must know of it, e.g. why it does not decode in a faster mode."""
    fetch_s: float = 0.0
    """What of the time until now the network took, which is no part of loading."""
    keeps_prompts: bool = False
    """Whether it is a server that keeps prompts even where each shall stand alone."""


@dataclass(frozen=True)
class Started:
    """The prompt is tokenized; prefill begins. `cached_tokens` come from the kept KV cache."""

    turn: int
    received_ns: int
    prompt_tokens: int
    cached_tokens: int


@dataclass(frozen=True)
class Prefilled:
    """Prefill went on: `done` of `total` prompt tokens that must be computed."""

    turn: int
    done: int
    total: int
    at_ns: int


@dataclass(frozen=True)
class Tokens:
    """Output tokens in order. `pieces[i]` is the text of the answer token i made final, often "".

    `times_ns[i]` is when token i was known on the host.
    """

    turn: int
    ids: list[int]
    pieces: list[str]
    times_ns: list[int]
    thoughts: list[str] = field(default_factory=list)
    """The same as `pieces` for the model's thoughts, which are no part of the answer; empty where
    none of these tokens has any."""


@dataclass(frozen=True)
class Memory:
    """A ledger, sent at most twice a second while decoding and after each turn."""

    ledger: Ledger


@dataclass(frozen=True)
class Finished:
    """A turn is over. `reason`: eos, length, stop (asked for) or context (the context is full).

    `text` is the whole answer decoded at once, without thoughts: the authority over the pieces,
    which lack what is held back at the end, as of a character cut in the middle. A server sends
    chunks: it says how many, and its own counts of tokens, -1 where it does not count.
    """

    turn: int
    reason: str
    output_tokens: int
    text: str
    finished_ns: int
    chunks: int = -1
    """How many chunks carried the tokens; -1: each token came by itself."""
    prompt_tokens: int = -1
    """As counted by a server, which does so at the end."""
    cached_tokens: int = 0
    """Of those, taken from a server's own prompt cache."""
    thoughts: str = ""
    """The whole of the model's thoughts, without their marks."""
    thought_tokens: int = 0
    """Output tokens that are thoughts or marks around them; -1: there are, not counted."""
    raw: str = ""
    """Thoughts and answer as the model wrote them, with its marks; empty where that is `text`."""


@dataclass(frozen=True)
class TokenScores:
    """Answer to `ScoreTokens`: natural logarithms of probabilities, without sampling settings.

    The lists but `also` run in parallel with `ids[first:]`.
    """

    number: int
    logprobs: list[float] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    """Text of each token, decoded alone; empty for `END`."""
    ranks: list[int] = field(default_factory=list)
    """How many tokens were likelier: 0 is what a greedy answer says."""
    also: list[float] = field(default_factory=list)
    problem: str = ""
    """Why there are no figures, in words; empty where there are."""


@dataclass(frozen=True)
class Done:
    """A `Prepare` has succeeded, with what it has to say of its result."""

    job: str
    result: dict[str, Any]


@dataclass(frozen=True)
class Failed:
    """Something did not work; `turn` is -1 unless it ended a turn. The worker lives on.

    `kind`: out_of_memory, device_busy, device_failed, gpu_unusable, no_kernel_image, context_full,
    bad_checkpoint, missing_library, unsupported, fetch_failed, bad_calibration, no_space,
    environment, internal;
    of a server server_unreachable, server_silent, server_denied, server_ended, server_refused,
    server_busy, stream_cut; the near side adds cannot_start, worker_ended, not_responding and
    cannot_write.
    `reason` is one line, `hint` what to try. Sizes for out_of_memory, -1 where not known.
    """

    kind: str
    reason: str
    hint: str = field(default="", metadata={FORMERLY: "mend"})
    turn: int = -1
    needed: int = -1
    free: int = -1


Command = Load | Generate | ScoreTokens | Stop | Prepare | Shutdown
Event = (
    Hello
    | Alive
    | Progress
    | Ready
    | Started
    | Prefilled
    | Tokens
    | Memory
    | Finished
    | TokenScores
    | Done
    | Failed
)

_COMMANDS: dict[str, type[Any]] = {c.__name__: c for c in typing.get_args(Command)}
_EVENTS: dict[str, type[Any]] = {c.__name__: c for c in typing.get_args(Event)}

# ---------------------------------------------------------------- to and from the wire


def encode(message: Command | Event) -> bytes:
    """Return `message` as one JSON line, with its newline."""
    body = {"type": type(message).__name__, **dataclasses.asdict(message)}
    # ASCII escapes keep U+2028 and lone surrogates of a model's text from ever breaking a line.
    return json.dumps(body, separators=(",", ":")).encode("ascii") + b"\n"


def decode_command(line: bytes) -> Command:
    """Return the command on `line`. Raises ProtocolError."""
    return typing.cast("Command", _decode(line, _COMMANDS))


def decode_event(line: bytes) -> Event:
    """Return the event on `line`. Raises ProtocolError."""
    return typing.cast("Event", _decode(line, _EVENTS))


def _decode(line: bytes, known: dict[str, type[Any]]) -> Any:
    try:
        body = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not JSON: {line[:80]!r}") from error
    if not isinstance(body, dict):
        raise ProtocolError(f"not an object: {line[:80]!r}")
    name = body.pop("type", None)
    if not isinstance(name, str) or name not in known:
        raise ProtocolError(f"unknown message type: {str(name)[:80]!r}")
    return from_json(known[name], body)
