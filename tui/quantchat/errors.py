"""The one kind of error a user sees: a line that says what, where and how to mend it."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can mend. Shown as one line, never with a traceback.

    `what` is the complaint, `where` the file, key or argument it is about, `hint` what to do.
    """

    status = 2
    """Exit status of a command that ends so."""

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        cure = f" ({self.hint})" if self.hint else ""
        return f"{place}{self.what}{cure}"

    @property
    def lines(self) -> tuple[str, ...]:
        """What to print, a line each; several where one file holds several mistakes."""
        return (str(self),)


class ModelsFailed(UserError):
    """The call was right, but a model that it needs, or each of them, could not do its part."""

    status = 1
