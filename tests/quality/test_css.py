"""Style rules name widgets that exist: a rule for a renamed class would silently do nothing."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import textual

import quantchat

TEXTUAL = Path(textual.__file__).parent
APP = Path(quantchat.__file__).parent / "app"


def rules_and_classes() -> tuple[dict[Path, list[str]], set[str]]:
    """Return the style sheets by file, and the names of the app's classes."""
    rules = {path: [path.read_text(encoding="utf-8")] for path in APP.rglob("*.tcss")}
    classes: set[str] = set()
    for path in APP.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                classes.add(node.name)
            targets = node.targets if isinstance(node, ast.Assign) else ()
            if any(isinstance(t, ast.Name) and t.id.endswith("CSS") for t in targets):
                assert isinstance(node, ast.Assign)
                if isinstance(node.value, ast.Constant):
                    rules.setdefault(path, []).append(str(node.value.value))
    return rules, classes


def test_each_rule_names_a_class() -> None:
    rules, classes = rules_and_classes()
    for path in TEXTUAL.rglob("*.py"):
        classes.update(re.findall(r"(?m)^class (\w+)", path.read_text(encoding="utf-8")))
    named = {
        (path.name, name)
        for path, texts in rules.items()
        for text in texts
        for selector in re.findall(r"([^{};]+)\{", re.sub(r"/\*.*?\*/", "", text, flags=re.S))
        for name in re.findall(r"(?<![\w.#$:-])[A-Z]\w+", selector)
    }
    assert len(named) > 20
    assert {one for one in named if one[1] not in classes} == set()
