"""The language of gates: `b.decode_tps < 0.95 * a.decode_tps`, parsed and never run as Python.

    gate     sum ("<" | "<=" | ">" | ">=") sum
    sum      product (("+" | "-") product)*
    product  factor (("*" | "/") factor)*
    factor   "-" factor | number | column "." figure | "(" sum ")"

Sums and products of equal rank group from the left, as everywhere.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, cast

from quantchat.errors import UserError
from quantchat.profile.nearest import did_you_mean
from quantchat.snapshot.figures import BY_NAME
from quantchat.text import one_line

LONGEST: Final = 500
"""Characters of a gate at most."""

DEEPEST: Final = 40
"""Parentheses and signs within each other, at most."""

Sign = Literal["+", "-", "*", "/"]
Relation = Literal["<", "<=", ">", ">="]

_OPERATIONS: dict[Sign, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
_RELATIONS = ("<", "<=", ">", ">=")
_RANK = {"+": 1, "-": 1, "*": 2, "/": 2}


@dataclass(frozen=True)
class Number:
    """A number as it was written: finite, and never negative."""

    value: float

    def __str__(self) -> str:
        return repr(self.value).removesuffix(".0")


@dataclass(frozen=True)
class Name:
    """A figure of a column."""

    column: str
    figure: str

    def __str__(self) -> str:
        return f"{self.column}.{self.figure}"


@dataclass(frozen=True)
class Negative:
    """Minus what follows."""

    of: Expression

    def __str__(self) -> str:
        return f"-({self.of})" if isinstance(self.of, Binary) else f"-{self.of}"


@dataclass(frozen=True)
class Binary:
    """Two operands and the sign between them."""

    sign: Sign
    left: Expression
    right: Expression

    def __str__(self) -> str:
        rank = _RANK[self.sign]
        left = f"({self.left})" if _rank(self.left) < rank else str(self.left)
        # Of equal rank on the right only with parentheses: without, they would group leftwards.
        right = f"({self.right})" if _rank(self.right) <= rank else str(self.right)
        return f"{left} {self.sign} {right}"


Expression = Number | Name | Negative | Binary


@dataclass(frozen=True)
class Gate:
    """A condition that fails a comparison."""

    left: Expression
    relation: Relation
    right: Expression

    def __str__(self) -> str:
        return f"{self.left} {self.relation} {self.right}"

    @property
    def names(self) -> list[Name]:
        """Each name in it, once, from the left."""
        return list(dict.fromkeys([*_names(self.left), *_names(self.right)]))


def evaluate(tree: Expression, values: Mapping[Name, Any]) -> Any:
    """What `tree` comes to with these values, which may be arrays."""
    if isinstance(tree, Number):
        return tree.value
    if isinstance(tree, Name):
        return values[tree]
    if isinstance(tree, Negative):
        return -evaluate(tree.of, values)
    return _OPERATIONS[tree.sign](evaluate(tree.left, values), evaluate(tree.right, values))


def parse(text: str, columns: Sequence[str]) -> Gate:
    """The gate that `text` holds; `columns` are the letters there are.

    Raises UserError, with the place in the text, what is wrong there and the nearest known name.
    """
    if len(text) > LONGEST:
        raise UserError(f"a gate of more than {LONGEST} characters", where="--fail-if")
    return _Parser(text, columns).gate()


def _rank(tree: Expression) -> int:
    return _RANK[tree.sign] if isinstance(tree, Binary) else 3


def _names(tree: Expression) -> Iterator[Name]:
    if isinstance(tree, Name):
        yield tree
    elif isinstance(tree, Negative):
        yield from _names(tree.of)
    elif isinstance(tree, Binary):
        yield from _names(tree.left)
        yield from _names(tree.right)


class _Token(NamedTuple):
    kind: Literal["number", "word", "sign", "end"]
    text: str
    at: int
    """Index of its first character."""


# ASCII alone: `\d` and `\w` would take digits and letters that no figure is named with.
_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<word>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<sign><=|>=|[-+*/()<>.])"
    r"|(?P<end>$))"
)


class _Parser:
    """Recursive descent, one token ahead."""

    def __init__(self, text: str, columns: Sequence[str]) -> None:
        self._text = text
        self._columns = columns
        self._depth = 0
        self._end = 0
        self._next = self._scan()

    def gate(self) -> Gate:
        left = self._sum()
        relation = self._next
        if relation.text not in _RELATIONS:
            raise self._unexpected("one of < <= > >=")
        self._advance()
        right = self._sum()
        if self._next.kind != "end":
            raise self._unexpected(
                "the end" if self._next.text in (*_RELATIONS, ")") else "an operator"
            )
        gate = Gate(left, cast("Relation", relation.text), right)
        if not gate.names:
            raise self._error(0, "no figure in it", "name one, as in b.decode_tps")
        return gate

    def _sum(self) -> Expression:
        return self._chain(self._product, ("+", "-"))

    def _product(self) -> Expression:
        return self._chain(self._factor, ("*", "/"))

    def _chain(self, operand: Callable[[], Expression], signs: tuple[Sign, Sign]) -> Expression:
        tree = operand()
        while self._next.text in signs:
            sign = cast("Sign", self._advance().text)
            tree = Binary(sign, tree, operand())
        return tree

    def _factor(self) -> Expression:
        token = self._advance()
        if token.kind == "number":
            return self._number(token)
        if token.kind == "word":
            return self._name(token)
        if token.text not in ("-", "("):
            raise self._unexpected("a number, a figure or (", token)
        self._depth += 1
        if self._depth > DEEPEST:
            raise self._error(token.at, f"nested more than {DEEPEST} deep")
        tree: Expression
        if token.text == "-":
            tree = Negative(self._factor())
        else:
            tree = self._sum()
            if self._next.text != ")":
                raise self._unexpected(")")
            self._advance()
        self._depth -= 1
        return tree

    def _number(self, token: _Token) -> Number:
        value = float(token.text)
        if not math.isfinite(value):
            raise self._error(token.at, "too large a number")
        return Number(value)

    def _name(self, column: _Token) -> Name:
        if column.text not in self._columns:
            mend = did_you_mean(column.text, self._columns)
            if column.text in BY_NAME:
                mend = f"whose? {self._columns[0]}.{column.text}, for one"
            raise self._error(
                column.at,
                f'no column is called "{column.text}"',
                mend or f"there are {', '.join(self._columns[:8])}",
            )
        if self._next.text != ".":
            raise self._unexpected(f"a figure of {column.text}, as in {column.text}.decode_tps")
        self._advance()
        figure = self._next
        if figure.kind != "word":
            raise self._unexpected("a figure, as in decode_tps")
        self._advance()
        if figure.text not in BY_NAME:
            raise self._error(
                figure.at,
                f'no figure is called "{figure.text}"',
                did_you_mean(figure.text, BY_NAME) or f"there are {', '.join(BY_NAME)}",
            )
        return Name(column.text, figure.text)

    # ------------------------------------------------------------ tokens

    def _advance(self) -> _Token:
        token, self._next = self._next, self._next
        if token.kind != "end":
            self._next = self._scan()
        return token

    def _scan(self) -> _Token:
        match = _TOKEN.match(self._text, self._end)
        if match is None:
            rest = self._text[self._end :]
            at = self._end + len(rest) - len(rest.lstrip())
            raise self._error(at, f'"{self._text[at]}" means nothing here')
        kind = cast('Literal["number", "word", "sign", "end"]', match.lastgroup)
        self._end = match.end()
        return _Token(kind, match[kind], match.start(kind))

    def _unexpected(self, wanted: str, token: _Token | None = None) -> UserError:
        token = token or self._next
        found = f'"{token.text}"' if token.text else "the end"
        return self._error(token.at, f"{found} where {wanted} should be")

    def _error(self, at: int, what: str, mend: str = "") -> UserError:
        where = f"--fail-if {one_line(self._text)!r}, character {at + 1}"
        return UserError(one_line(what), where=where, mend=one_line(mend))
