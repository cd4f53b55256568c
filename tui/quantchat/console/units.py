"""Types of options whose values have a unit: sizes, numbers of tokens, and shares."""

from __future__ import annotations

import re
from typing import Any

import click

_SIZES = {
    "": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40,
}  # fmt: skip
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z%]*)")


class _Parsed(click.ParamType):  # type: ignore[type-arg,unused-ignore] # not generic in click 8.1
    """A number with a unit; a subclass sets `name` and `example` for error messages."""

    def _split(self, value: Any, param: click.Parameter | None) -> tuple[float, str]:
        found = _NUMBER.fullmatch(str(value).strip())
        if found is None:
            self.fail(f"{value!r} is not a {self.name}: give for example {self.example}", param)
        return float(found[1]), found[2].upper()

    example = ""


class Size(_Parsed):
    """A number of bytes: `24GB`, `800MiB`."""

    name = "size"
    example = "24GB or 800MiB"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number of bytes. Raises BadParameter."""
        if isinstance(value, int):
            return value
        count, unit = self._split(value, param)
        if unit not in _SIZES or not 0 < count * _SIZES[unit] < 2**53:
            self.fail(f"{value!r} is not a size: give for example {self.example}", param)
        return int(count * _SIZES[unit])


class Tokens(_Parsed):
    """A number of tokens: `4096`, or `16k` for 16 × 1024."""

    name = "number of tokens"
    example = "4096 or 16k"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number of tokens. Raises BadParameter."""
        if isinstance(value, int):
            return value
        count, unit = self._split(value, param)
        factor = {"": 1, "K": 1024, "M": 1024**2}.get(unit)
        if factor is None or not 1 <= count * factor <= 10**8:
            self.fail(
                f"{value!r} is not a number of tokens: give for example {self.example}", param
            )
        return int(count * factor)


class Share(_Parsed):
    """A share: `1%` or `0.01`."""

    name = "share"
    example = "1% or 0.01"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the share, between 0 and 1. Raises BadParameter."""
        if isinstance(value, float):
            return value
        count, unit = self._split(value, param)
        share = count / 100 if unit == "%" else count
        if unit not in ("", "%") or not 0 < share < 1:
            self.fail(f"{value!r} is not a share: give for example {self.example}", param)
        return share
