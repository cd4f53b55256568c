"""The errors that users see: one line that says what happened, where, and what to do."""

from __future__ import annotations


class UserError(Exception):
    """An error that the user can fix. Shown as one line, never with a traceback.

    `what` says what happened, `where` names the file, key or argument, `hint` says what to do.
    """

    status = 2
    """Exit status of the command."""

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{place}{self.what}{hint}"

    @property
    def lines(self) -> tuple[str, ...]:
        """The lines to print; several if a file has several errors."""
        return (str(self),)


class ModelsFailed(UserError):
    """The command line was correct, but all models failed, or one that the command needs."""

    status = 1
