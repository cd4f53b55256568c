"""Lets a loaded model read a text, window by window, and yields the logits of its tokens.

`windows.Windows` says which tokens of a window are scored. The tokens before them are only context,
except for the KLD by depth (`Windows.early`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantchat.wire.jobs import ScoreJob
from quantchat.wire.messages import LoadModel
from quantchat.worker import loaders
from quantchat.worker.failures import Refused, describe
from quantchat.worker.model.loaded import Loaded
from quantchat.worker.report import Report
from quantchat.worker.scoring.logits import Forecast
from quantchat.worker.scoring.window_fit import largest_window
from quantchat.worker.scoring.windows import Tokens, Windows, check, read_tokens

if TYPE_CHECKING:
    from quantchat.worker.llama.model import LlamaModel
    from quantchat.worker.llama.scoring import LlamaForecast

MAX_MEAN_NATS = 300.0
"""Largest mean surprisal in nats. The perplexity e^300 and the square of its standard error still
fit into a float64."""

DECODE = "none: reads whole windows"
"""Value of `ModelInfo.decode` for a model that only reads a text and generates nothing."""


@dataclass(frozen=True)
class TextScoring:
    """A loaded model and the tokens that it reads."""

    loaded: Loaded | LlamaModel
    tokens: Tokens
    windows: Windows
    forecast: Forecast | LlamaForecast
    early: int
    """Number of tokens right before the scored tokens of each window whose logits are computed too;
    0 unless they are needed for the KLD by depth."""
    limit: str
    """Why the windows are shorter than the length `window` that the job asks for; else empty."""

    @property
    def starts(self) -> range:
        """For each window, the index of its first token in the text."""
        return self.windows.starts(len(self.tokens.ids))

    @property
    def positions(self) -> int:
        """Number of scored tokens of all windows."""
        return len(self.starts) * self.windows.scored

    @property
    def stored(self) -> int:
        """Number of tokens whose logits are computed: the early and the scored ones."""
        return len(self.starts) * (self.early + self.windows.scored)

    def blocks(self, report: Report) -> Iterator[tuple[Any, Any, bool]]:
        """Yield blocks of tokens: their logits, their ids, and whether they are scored.

        The logits are float32, (tokens, vocabulary); each row predicts the token with its id in the
        same row. The tokens of a window come in order: first the early tokens (`early`), then the
        scored tokens. A block has at most `logits.BLOCK_LOGITS` logits. `report` is called with the
        number of windows read.
        """
        import torch

        first = self.windows.context - self.early
        for done, start in enumerate(self.starts):
            report(done, len(self.starts), "windows read")
            ids = self.tokens.window(start, self.windows)
            targets = torch.tensor(ids)
            place = first
            for logits in self.forecast.logits(ids[:-1], first - 1):
                split = min(len(logits), max(0, self.windows.context - place))
                for rows, counts in ((logits[:split], False), (logits[split:], True)):
                    if len(rows):
                        yield rows, targets[place : place + len(rows)].to(rows.device), counts
                        place += len(rows)
        report(len(self.starts), len(self.starts), "windows read")


def load_or_refuse(command: LoadModel, report: Report) -> Loaded | LlamaModel:
    """Load the model of a job. Raises Refused for any failure; the reason names the model."""
    try:
        return loaders.load_any(command, lambda stage: report(0, 0, stage))
    except Exception as error:
        failure = describe(error, loading=command.model)
        raise Refused(failure.kind, failure.reason, failure.hint) from error


def begin(job: ScoreJob, report: Report) -> TextScoring:
    """Load the job's model, encode its text with the model's tokenizer, and choose the windows.

    Raises Refused if the model cannot be loaded or cannot read the text.
    """
    loaded = load_or_refuse(job.load, report)
    report(0, 0, "reading the text")
    tokens = read_tokens(loaded.tokenizer, Path(job.text), job.tokens)
    forecast = forecast_of(loaded, tokens.ids)
    windows, limit = Windows(job.window, job.stride), ""
    if job.fit is not None:
        size, limit = largest_window(job.window, len(tokens.ids), loaded, forecast, job.fit)
        windows = Windows(size, size) if limit else windows
    check(tokens, windows, loaded.context_length)
    early = windows.early if job.depths and (job.keep or job.against) else 0
    return TextScoring(loaded, tokens, windows, forecast, early, limit)


def forecast_of(loaded: Loaded | LlamaModel, trial: list[int]) -> Forecast | LlamaForecast:
    """Return the object that computes the logits of `loaded`; `trial` has token ids of any text."""
    if isinstance(loaded, Loaded):
        return Forecast(loaded, trial)
    from quantchat.worker.llama.scoring import LlamaForecast

    return LlamaForecast(loaded)


def surprisal(log_probabilities: Any, targets: Any) -> Any:
    """Return the surprisal of the token ids `targets` in nats, one for each row.

    `log_probabilities` has the shape (tokens, vocabulary). Raises Refused if a surprisal is not
    finite, because the model gives that token a probability of 0.
    """
    nll = -log_probabilities.gather(1, targets[:, None])[:, 0]
    if not nll.isfinite().all():
        raise Refused(
            "unsupported",
            "the model gives a token of the text the probability 0",
            "try another dtype or kernel",
        )
    return nll


def check_mean(mean: float) -> float:
    """Return `mean`, a mean surprisal in nats. Raises Refused if e^mean is too large for a float64.

    That happens with a broken checkpoint: its large logits give wrong tokens nearly all
    probability.
    """
    if mean > MAX_MEAN_NATS:
        raise Refused(
            "unsupported",
            f"the perplexity of the model is too large: e^{mean:.0f}",
            "the checkpoint is broken: build it again, or try another dtype or kernel",
        )
    return mean
