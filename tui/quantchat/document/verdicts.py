"""The verdicts on gates: lines for people, JSON values, a Markdown summary and JUnit XML for CI."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree as ET

from quantchat.document.document import Paragraph, Role, paragraph
from quantchat.document.figures import plural
from quantchat.document.markdown import escaped
from quantchat.snapshot.verdicts import JudgedQuantity, Status, Verdict
from quantchat.text import one_line

_ROLES: dict[Status, Role] = {"failed": "bad", "passed": "good", "undecided": "warning"}

_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot contain, not even as references."""


def line(verdict: Verdict) -> Paragraph:
    """Return the verdict as a line of text."""
    status = (verdict.status, _ROLES[verdict.status])
    unless = "unless " if verdict.gate.option == "--fail-unless" else ""
    return paragraph(status, f"  {unless}{verdict.gate}: {reason(verdict)}")


def reason(verdict: Verdict) -> str:
    """Return the value of the gate's quantity, its interval, and what the interval shows."""
    found = verdict.judged
    value = f"{found.quantity} is {found.value:.4g}"
    threshold = f"{found.threshold:.4g}"
    if found.low is None or found.high is None:
        return f"{value}, with no interval to compare with {threshold}: {found.why}"
    if not found.sampled:
        return f"{value}, compared with {threshold} without an interval: memory is one value"
    interval = f"95 % CI {found.low:.4g} to {found.high:.4g}"
    ends = {
        "shown": f"the whole interval is {found.relation} {threshold}: shown",
        "shown otherwise": f"no value in it is {found.relation} {threshold}: shown otherwise",
        "undecided": f"{threshold} lies in the interval: undecided{more_needed(verdict.judged)}",
    }
    return f"{value} ({interval}): {ends[found.outcome]}"


def more_needed(judged: JudgedQuantity) -> str:
    """Return how many prompts, tokens or other units would decide an undecided gate.

    The text is the end of a sentence; it is empty if the number of units measured is not known.
    """
    needed = judged.needed
    if not judged.units:
        return ""
    if needed is None:
        return "; too close to the limit for any longer measurement"
    if judged.unit == "prompt and round":
        times = needed / judged.units
        return f"; about {times:.1f} times as many prompts and rounds would decide"
    unit = {"pair": "answer"}.get(judged.unit, judged.unit)
    return f"; about {plural(needed, unit)} would decide ({judged.units} now)"


def as_json(verdict: Verdict) -> dict[str, object]:
    """Return all fields of a verdict as JSON values."""
    found = verdict.judged
    return {
        "gate": str(verdict.gate),
        "option": verdict.gate.option,
        "status": verdict.status,
        "outcome": found.outcome,
        "quantity": found.quantity,
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "threshold": found.threshold,
        "sampled": found.sampled,
        "unit": found.unit,
        "units": found.units,
        "units_needed": found.needed,
    }


def summary(title: str, verdicts: Sequence[Verdict]) -> str:
    """Return the verdicts as Markdown, for the summary page of a CI job."""
    lines = [
        f"### {escaped(title)}",
        "",
        "| result | gate | found |",
        "| --- | --- | --- |",
    ]
    for verdict in verdicts:
        gate = f"{verdict.gate.option} {verdict.gate}"
        texts = (verdict.status, gate, reason(verdict))
        lines.append(f"| {' | '.join(escaped(text) for text in texts)} |")
    return "\n".join(lines) + "\n\n"


def junit(title: str, verdicts: Sequence[Verdict]) -> bytes:
    """Return the verdicts as JUnit XML: an undecided gate is an error, not a failure."""
    counts = {status: sum(one.status == status for one in verdicts) for status in _ROLES}
    totals = {
        "tests": str(len(verdicts)),
        "failures": str(counts["failed"]),
        "errors": str(counts["undecided"]),
    }
    suites = ET.Element("testsuites", totals)
    suite = ET.SubElement(suites, "testsuite", {"name": _xml(title), **totals})
    for verdict in verdicts:
        name = f"{verdict.gate.option} {verdict.gate}"
        case = ET.SubElement(suite, "testcase", {"classname": "quantchat", "name": _xml(name)})
        message = _xml(reason(verdict))
        if verdict.status == "failed":
            ET.SubElement(case, "failure", {"message": message})
        elif verdict.status == "undecided":
            ET.SubElement(case, "error", {"type": "undecided", "message": message})
        else:
            ET.SubElement(case, "system-out").text = message
    ET.indent(suites)
    text: bytes = ET.tostring(suites, encoding="utf-8", xml_declaration=True)
    return text


def _xml(text: str) -> str:
    return _NO_XML.sub("\N{REPLACEMENT CHARACTER}", one_line(text))
