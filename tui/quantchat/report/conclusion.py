"""The result of a snapshot in one or two sentences, the first lines of its report."""

from __future__ import annotations

from collections.abc import Iterator

from quantchat.features.measure.headline import headline
from quantchat.snapshot.schema import Snapshot
from quantchat.snapshot.score import ScoredRecord, ScoreRecord
from quantchat.text import one_line

_GB = 1e9


def conclusion(snapshot: Snapshot) -> str:
    """Return what was measured or scored as plain sentences; empty for a chat."""
    parts = [headline(snapshot), score_sentence(snapshot.score) if snapshot.score else ""]
    return " ".join(filter(None, map(_sentence, parts)))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def score_sentence(score: ScoreRecord) -> str:
    """Return which variants are closest to the reference and farthest from it, with figures.

    Empty if no variant has a KLD.
    """
    variants = [one for one in score.models if one.role == "variant" and one.divergence]
    if not variants:
        return ""
    ranked = sorted(variants, key=_kld)
    closest, farthest = ranked[0], ranked[-1]
    floor = next((one for one in score.models if one.role == "floor" and one.divergence), None)
    text = f"{_name(closest)} {_far(closest)}"
    if floor is not None:
        text += f"; the noise floor is {_kld(floor):.2g} nats"
    if farthest is closest:
        return f"{text}."
    shown = "" if _apart(closest, farthest) else "; no difference between the two is shown"
    return f"{text}. {_name(farthest)} {_far(farthest)}{shown}."


def _kld(one: ScoredRecord) -> float:
    return one.divergence.kld_mean.value if one.divergence else float("inf")


def _apart(closer: ScoredRecord, farther: ScoredRecord) -> bool:
    """Return whether the two KLD differ by more than two standard errors of their difference."""
    errors = [
        one.divergence.kld_mean.wider if one.divergence else None for one in (closer, farther)
    ]
    if errors[0] is None or errors[1] is None:
        return False
    return bool(_kld(farther) - _kld(closer) > 2.0 * (errors[0] ** 2 + errors[1] ** 2) ** 0.5)


def _name(one: ScoredRecord) -> str:
    return one_line(one.label)


def _far(one: ScoredRecord) -> str:
    return f"differs from the reference by a KLD of {', '.join(_figures(one))}"


def _figures(one: ScoredRecord) -> Iterator[str]:
    yield f"{_kld(one):.3g} nats"
    if one.divergence:
        yield f"{one.divergence.top1_agreement.value:.1%} top-1 agreement"
    if one.weights > 0:
        yield f"{one.weights / _GB:.2f} GB of weights"
