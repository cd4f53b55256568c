"""The sampling settings that the shown models' own files recommend."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from quantchat.profile.model import Generation
from quantchat.session.live_variant import LiveVariant


@dataclass(frozen=True)
class Recommendation:
    """Settings that the files of some variants recommend with equal values."""

    labels: tuple[str, ...]
    """The variants."""
    source: str
    """The name of the file."""
    settings: Mapping[str, float]
    """Values by the names of settings; never empty."""

    def changes(self, now: Generation) -> dict[str, str]:
        """Return the recommended values that differ from those of `now`, as text."""
        return {
            name: f"{value:g}"
            for name, value in self.settings.items()
            if value != getattr(now, name)
        }


def recommendations(sides: Iterable[LiveVariant]) -> list[Recommendation]:
    """Return the recommendations of the loaded models of `sides`, equal ones together.

    Servers are left out, because they do not report what their model's files recommend.
    """
    found: list[Recommendation] = []
    for side in sides:
        model_info = side.model_info
        if model_info is None or not model_info.recommended:
            continue
        own = Recommendation((side.label,), model_info.recommended_by, model_info.recommended)
        for at, other in enumerate(found):
            if (other.source, other.settings) == (own.source, own.settings):
                found[at] = Recommendation((*other.labels, *own.labels), own.source, own.settings)
                break
        else:
            found.append(own)
    return found
