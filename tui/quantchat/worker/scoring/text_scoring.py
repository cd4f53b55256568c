"""A loaded model before a text: what it says of each scored token, window by window."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantchat.wire.codec import from_json
from quantchat.wire.messages import Load
from quantchat.worker import loaders
from quantchat.worker.failures import Refused, describe
from quantchat.worker.jobs import Report
from quantchat.worker.model.loaded import Loaded
from quantchat.worker.scoring.logits import Forecast
from quantchat.worker.scoring.windows import Tokens, Windows, check, read_tokens

MOST_NATS = 300.0
"""Mean surprise at most: a perplexity of e^300 and the square of its error are still numbers."""

DECODE = "none: reads whole windows"
"""What stands for the decode mode of a model that decodes nothing."""


@dataclass(frozen=True)
class TextScoring:
    """A model, and the tokens it is to read."""

    loaded: Loaded
    tokens: Tokens
    windows: Windows
    forecast: Forecast

    @property
    def starts(self) -> range:
        """Where the windows begin."""
        return self.windows.starts(len(self.tokens.ids))

    @property
    def positions(self) -> int:
        """Tokens that are scored."""
        return len(self.starts) * self.windows.scored

    def blocks(self, report: Report) -> Iterator[tuple[Any, Any]]:
        """Logits (float32, a row for each scored token) and those tokens' ids, in order.

        As many rows at a time as fit the memory `Forecast` allows itself.
        """
        import torch

        for done, start in enumerate(self.starts):
            report(done, len(self.starts), "windows read")
            ids = self.tokens.window(start, self.windows)
            wanted = torch.tensor(ids[self.windows.context :])
            for logits in self.forecast.logits(ids[:-1], self.windows.context - 1):
                yield logits, wanted[: len(logits)].to(logits.device)
                wanted = wanted[len(logits) :]
        report(len(self.starts), len(self.starts), "windows read")

    def about(self) -> dict[str, Any]:
        """What was read by what, as plain JSON values."""
        begin = self.tokens.begin
        return {
            "resolved": dataclasses.asdict(self.loaded.resolved(DECODE)),
            "tokens": len(self.tokens.ids),
            "positions": self.positions,
            "context": self.windows.context,
            "ids_sha256": self.tokens.digest,
            "begin": "" if begin is None else self.loaded.tokenizer.decode([begin]),
            "vocabulary": self.forecast.vocabulary,
        }


def begin(options: dict[str, Any], report: Report) -> TextScoring:
    """Load `load` (the fields of `Load`), and take the file `text` in the tokens of that model.

    `tokens` of it are read (0: all), in windows of `window`, each `stride` after the one before.
    Raises Refused where the model cannot be loaded or cannot read it.
    """
    command = from_json(Load, options["load"])
    try:
        loaded = loaders.load(command, lambda stage: report(0, 0, stage))
    except Exception as error:  # what failed was loading, and that is to be told
        failure = describe(error, loading=command.model)
        raise Refused(failure.kind, failure.reason, failure.hint) from error
    report(0, 0, "reading the text")
    windows = Windows(options["window"], options["stride"])
    tokens = read_tokens(loaded.tokenizer, Path(options["text"]), options["tokens"])
    check(tokens, windows, loaded.context_length)
    return TextScoring(loaded, tokens, windows, Forecast(loaded, tokens.ids))


def surprisal(log_probabilities: Any, wanted: Any) -> Any:
    """Negative log-likelihood of the ids `wanted`, one for each row, in nats.

    Raises Refused where it is not finite: a token of the text is given no probability at all.
    """
    nll = -log_probabilities.gather(1, wanted[:, None])[:, 0]
    if not nll.isfinite().all():
        raise Refused(
            "unsupported",
            "the model gives a token of the text no probability at all",
            "try another dtype or kernel",
        )
    return nll


def bounded(mean: float) -> float:
    """`mean` negative log-likelihood, in nats. Raises Refused where no perplexity comes of it.

    A broken checkpoint is as sure of what does not come as its logits are large.
    """
    if mean > MOST_NATS:
        raise Refused(
            "unsupported",
            f"its perplexity is too large to be told: e^{mean:.0f}",
            "the checkpoint is broken: make it anew, or try another dtype or kernel",
        )
    return mean
