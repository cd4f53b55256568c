"""A library that an engine needs. Apart from the messages, which no profile needs."""

from __future__ import annotations

from dataclasses import dataclass


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
