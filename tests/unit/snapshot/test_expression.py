"""The language of gates: any input is parsed, or refused in one clear line."""

from __future__ import annotations

import ast
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fakes.safe_line import is_clean
from quantchat.errors import UserError
from quantchat.snapshot.expression import (
    MAX_LENGTH,
    Binary,
    Expression,
    Gate,
    Name,
    Negative,
    Number,
    evaluate,
    parse,
)
from quantchat.snapshot.figures import by_name

COLUMNS = ["a", "b", "c"]

BY_NAME = by_name()

names = st.builds(Name, st.sampled_from(COLUMNS), st.sampled_from(sorted(BY_NAME)))
numbers = st.floats(0, allow_nan=False, allow_infinity=False).map(Number)
trees: st.SearchStrategy[Expression] = st.recursive(
    names | numbers,
    lambda inner: (
        st.builds(Negative, inner)
        | st.builds(Binary, st.sampled_from(["+", "-", "*", "/"]), inner, inner)
    ),
    max_leaves=8,
)
relations = st.sampled_from(["<", "<=", ">", ">="])

# Text that is nearly a gate, so that every rule of the grammar is reached.
_words = st.sampled_from(
    [*COLUMNS, "d", "aa", *BY_NAME, "ttft", "decode_tsp", "1", "0.95", "1e3", ".5", "1e999", "٣"]
)
_signs = st.sampled_from([*"+-*/()<>.", "<=", ">=", "==", "**", " ", "\t", "\n", "\x1b", "'", "é"])
near_gates = st.lists(_words | _signs, max_size=25).map("".join) | st.lists(
    _words | _signs, max_size=25
).map(" ".join)


@given(st.text() | near_gates)
def test_any_text_is_parsed_or_told_apart_in_one_line(text: str) -> None:
    try:
        gate = parse(text, COLUMNS)
    except UserError as error:
        (line,) = error.lines
        assert "\n" not in line
        assert is_clean(line)
        assert line.startswith("--fail-if")
    else:
        assert gate.names
        assert parse(str(gate), COLUMNS) == gate


@given(trees, relations, trees)
def test_what_is_printed_is_parsed_as_the_same(
    left: Expression, relation: str, right: Expression
) -> None:
    gate = Gate(left, relation, right)  # type: ignore[arg-type]
    if not gate.names or len(str(gate)) > MAX_LENGTH:
        return
    assert parse(str(gate), COLUMNS) == gate


class _Floats(ast.NodeTransformer):
    """Python reads a whole number as an int and reckons exactly; a gate knows only floats."""

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        assert isinstance(node.value, int | float)
        return ast.copy_location(ast.Constant(float(node.value)), node)


@given(trees)
@example(Binary("*", Number(94906265.0), Number(94906267.0)))
def test_evaluation_agrees_with_python(tree: Expression) -> None:
    """Python is an oracle here, and only here."""
    values = {
        Name(c, f): 2.0 + n for n, (c, f) in enumerate((c, f) for c in COLUMNS for f in BY_NAME)
    }
    text = str(tree)
    for name, value in values.items():
        text = text.replace(str(name), str(value))
    try:
        oracle = _Floats().visit(ast.parse(text, mode="eval"))
        expected = eval(compile(oracle, "<gate>", "eval"))
    except (ZeroDivisionError, OverflowError) as error:
        with pytest.raises(type(error)):
            evaluate(tree, values)
    else:
        found = evaluate(tree, values)
        assert found == expected or (math.isnan(found) and math.isnan(expected))


def test_the_gate_of_the_readme() -> None:
    gate = parse("b.decode_tps < 0.95 * a.decode_tps", COLUMNS)
    b, a = Name("b", "decode_tps"), Name("a", "decode_tps")
    assert gate == Gate(b, "<", Binary("*", Number(0.95), a))
    assert gate.names == [b, a]


@pytest.mark.parametrize(
    ("text", "value"),
    [("8 - 4 - 2", 2), ("8 / 4 / 2", 1), ("2 + 3 * 4", 14), ("(2 + 3) * -4", -20), ("--2", 2)],
)
def test_operators_group_as_everywhere(text: str, value: float) -> None:
    gate = parse(f"{text} < a.ttft_ms", COLUMNS)
    assert evaluate(gate.left, {}) == value


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("", 1, "invalid syntax"),
        ("b.decode_tsp < 1", 3, 'no figure is called "decode_tsp" (did you mean "decode_tps"?)'),
        ("  b.zzz < 1", 5, 'no figure is called "zzz" (the figures are ttft_ms, '),
        ("d.ttft_ms < 1", 1, 'no column is called "d" (the columns are a, b, c)'),
        (
            "1 < ttft_ms",
            5,
            'no column is called "ttft_ms" (name the column too, for example a.ttft_ms)',
        ),
        ("b < 1", 1, "which figure of b? (as in b.decode_tps)"),
        ("b. < 1", 4, "invalid syntax"),
        ("b.ttft_ms", 1, "this is no comparison"),
        ("b.ttft_ms < 1 < 2", 17, "a gate has only one comparison"),
        ("b.ttft_ms < 1)", 14, "unmatched ')'"),
        ("b.ttft_ms < 1 2", 15, "invalid syntax"),
        ("(b.ttft_ms < 1", 1, "'(' was never closed"),
        ("b.ttft_ms < 1e999", 13, "the number is too large"),
        ("b.ttft_ms == 1", 1, "a gate compares with one of < <= > >="),
        ("b.ttft_ms % 2 < 1", 11, '"%" is not allowed in a gate'),
        (
            "b.ttft_ms // 2 < 1",
            1,
            "only numbers, figures, + - * / and parentheses are allowed here",
        ),
        ("b.ttft_ms < 1j", 13, "only numbers, figures, + - * / and parentheses are allowed here"),
        ("b.ttft_ms < True", 13, "only numbers, figures, + - * / and parentheses are allowed here"),
        ("1 < 2", 1, "the gate has no figure (name one, as in b.decode_tps)"),
        ("__import__(b) < 1", 1, "only numbers, figures, + - * / and parentheses are allowed here"),
    ],
)
def test_a_mistake_has_its_place(text: str, place: int, said: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(text, COLUMNS)
    assert f", character {place}: {said}" in str(caught.value)


def test_no_gate_is_endless() -> None:
    with pytest.raises(UserError, match="more than 500 characters"):
        parse("a.ttft_ms < 1" + "+1" * 500, COLUMNS)


@pytest.mark.parametrize("sign", ["-", "1+", "(1+"])
def test_the_deepest_gate_is_read_or_refused(sign: str) -> None:
    fit = (MAX_LENGTH - 20) // (len(sign) + sign.count("("))
    text = "a.ttft_ms < " + sign * fit + "1" + ")" * (fit * sign.count("("))
    try:
        gate = parse(text, COLUMNS)
    except UserError as error:
        assert "nested" in str(error)
    else:
        assert math.isfinite(evaluate(gate.right, {}))
        assert gate.names
