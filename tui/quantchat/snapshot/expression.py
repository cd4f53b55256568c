"""The language of gates: `b.decode_tps < 0.95 * a.decode_tps`.

A gate is one comparison (< <= > >=) of two expressions. An expression is made of numbers, figures,
+ - * / and parentheses. A figure is named with its column, which is one variant in one run:
`a.ttft_ms`. Python's own parser reads the text, so operators group as in Python; other syntax is
refused, and the text is never run as code.
"""

from __future__ import annotations

import ast
import math
import operator
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from quantchat.errors import UserError
from quantchat.profile.nearest import did_you_mean
from quantchat.snapshot.figures import Kind, kinds
from quantchat.text import one_line

MAX_LENGTH: Final = 500
"""Longest gate, in characters. This also limits how deep it can be nested."""

Sign = Literal["+", "-", "*", "/"]
Relation = Literal["<", "<=", ">", ">="]
Option = Literal["--fail-if", "--fail-unless"]

_OPERATIONS: dict[Sign, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
_RANK = {"+": 1, "-": 1, "*": 2, "/": 2}
"""Sign → its precedence: * and / are computed before + and -."""
_SIGNS: dict[type[ast.operator], Sign] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/",
}  # fmt: skip
_RELATIONS: dict[type[ast.cmpop], Relation] = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=",
}  # fmt: skip
_FORBIDDEN = re.compile(r"[^A-Za-z0-9_.+\-*/()<>= ]")
_EXAMPLE = "a gate is like b.decode_tps < 0.95 * a.decode_tps"


@dataclass(frozen=True)
class Number:
    """A number as it was typed: finite and not negative."""

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
    """Minus an expression."""

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
        # A right operand of equal rank needs parentheses, because operators group to the left.
        right = f"({self.right})" if _rank(self.right) <= rank else str(self.right)
        return f"{left} {self.sign} {right}"


Expression = Number | Name | Negative | Binary


@dataclass(frozen=True)
class Gate:
    """A condition on figures that can make a command fail.

    With `--fail-if` the command fails if the condition holds, with `--fail-unless` if it does not.
    """

    left: Expression
    relation: Relation
    right: Expression
    option: Option = "--fail-if"

    def __str__(self) -> str:
        return f"{self.left} {self.relation} {self.right}"

    @property
    def where(self) -> str:
        """Return the gate as it is given on the command line, for messages."""
        return f"{self.option} '{self}'"

    @property
    def names(self) -> list[Name]:
        """Return each name in the gate once, from the left."""
        return list(dict.fromkeys([*names_in(self.left), *names_in(self.right)]))


def evaluate(tree: Expression, values: Mapping[Name, Any]) -> Any:
    """Return the value of `tree` for these values, which may be arrays."""
    if isinstance(tree, Number):
        return tree.value
    if isinstance(tree, Name):
        return values[tree]
    if isinstance(tree, Negative):
        return -evaluate(tree.of, values)
    return _OPERATIONS[tree.sign](evaluate(tree.left, values), evaluate(tree.right, values))


def parse(
    text: str, columns: Sequence[str], option: Option = "--fail-if", kind: Kind = "run"
) -> Gate:
    """Return the gate in `text`, which may name the columns `columns` and figures of `kind`.

    Raises UserError with the position in the text, what is wrong there and the nearest known name.
    """
    if len(text) > MAX_LENGTH:
        raise UserError(f"the gate has more than {MAX_LENGTH} characters", where=option)
    return _GateParser(text, columns, option, kind).gate()


def _rank(tree: Expression) -> int:
    return _RANK[tree.sign] if isinstance(tree, Binary) else 3


def names_in(tree: Expression) -> Iterator[Name]:
    """Yield each name in `tree`, from the left."""
    if isinstance(tree, Name):
        yield tree
    elif isinstance(tree, Negative):
        yield from names_in(tree.of)
    elif isinstance(tree, Binary):
        yield from names_in(tree.left)
        yield from names_in(tree.right)


class _GateParser:
    """Turns Python's syntax tree of one text into a gate."""

    def __init__(self, text: str, columns: Sequence[str], option: Option, kind: Kind) -> None:
        self._text = text
        self._columns = columns
        self._option: Option = option
        self._kind = kind
        self._known = [name for name, its in kinds().items() if its == kind]
        self._indent = len(text) - len(text.lstrip())

    def gate(self) -> Gate:
        node = self._parsed()
        if not isinstance(node, ast.Compare):
            raise self._error(node, "this is no comparison", _EXAMPLE)
        if len(node.ops) > 1:
            raise self._error(node.comparators[1], "a gate has only one comparison", _EXAMPLE)
        relation = _RELATIONS.get(type(node.ops[0]))
        if relation is None:
            raise self._error(node, "a gate compares with one of < <= > >=", _EXAMPLE)
        gate = Gate(self._tree(node.left), relation, self._tree(node.comparators[0]), self._option)
        if not gate.names:
            raise self._error(0, "the gate has no figure", f"name one, as in b.{self._sample}")
        return gate

    def _parsed(self) -> ast.expr:
        # Each white space character becomes one space, so that positions in the text stay the same.
        text = re.sub(r"\s", " ", self._text)
        if strange := _FORBIDDEN.search(text):
            raise self._error(strange.start(), f'"{strange[0]}" is not allowed in a gate')
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about text like "1if", which is refused below
                return ast.parse(text.strip(), mode="eval").body
        except SyntaxError as error:
            # The parser's offset 0 or None means "the whole text" (too many parentheses).
            at = self._indent + (error.offset or 1) - 1
            raise self._error(min(at, len(text)), error.msg, _EXAMPLE) from None
        except (MemoryError, RecursionError):
            raise self._error(0, "the parentheses are nested too deeply") from None

    def _tree(self, node: ast.expr) -> Expression:
        match node:
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                return self._number(node, value)
            case ast.Attribute(value=ast.Name(id=column), attr=figure):
                return self._name(node, column, figure)
            case ast.Name(id=name):
                raise self._error(node, *self._incomplete_name(name))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return Negative(self._tree(operand))
            case ast.BinOp(op=op, left=left, right=right) if type(op) in _SIGNS:
                return Binary(_SIGNS[type(op)], self._tree(left), self._tree(right))
        raise self._error(
            node, "only numbers, figures, + - * / and parentheses are allowed here", _EXAMPLE
        )

    def _number(self, node: ast.expr, written: float) -> Number:
        try:
            value = float(written)
        except OverflowError:
            value = math.inf
        if not math.isfinite(value):
            raise self._error(node, "the number is too large")
        return Number(value)

    def _name(self, node: ast.expr, column: str, figure: str) -> Name:
        if column not in self._columns:
            raise self._error(node, *self._incomplete_name(column))
        if figure not in self._known:
            at = (node.end_col_offset or 0) - len(figure) + self._indent
            if measured_by := kinds().get(figure):
                what = f'"{figure}" is a figure of `quantchat {measured_by}`'
                raise self._error(at, what, f"use one of {', '.join(self._known)}")
            hint = did_you_mean(figure, self._known)
            hint = hint or f"the figures are {', '.join(self._known)}"
            raise self._error(at, f'no figure is called "{figure}"', hint)
        return Name(column, figure)

    @property
    def _sample(self) -> str:
        """Return the name of the figure that hints use as an example."""
        return "decode_tps" if self._kind == "run" else self._known[0]

    def _incomplete_name(self, word: str) -> tuple[str, str]:
        """Return what is wrong with a column without a figure, or a figure without a column."""
        if word in self._columns:
            return f"which figure of {word}?", f"as in {word}.{self._sample}"
        hint = (
            did_you_mean(word, self._columns) or f"the columns are {', '.join(self._columns[:8])}"
        )
        if word in self._known:
            hint = f"name the column too, for example {self._columns[0]}.{word}"
        return f'no column is called "{word}"', hint

    def _error(self, at: ast.expr | int, what: str, hint: str = "") -> UserError:
        place = at if isinstance(at, int) else at.col_offset + self._indent
        where = f"{self._option} {one_line(self._text)!r}, character {place + 1}"
        return UserError(one_line(what), where=where, hint=one_line(hint))
