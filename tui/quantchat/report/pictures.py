"""The plots of a report as files."""

from __future__ import annotations

from quantchat.document import drawing
from quantchat.document.drawing import Plot
from quantchat.report.page_content import Report, Section


def pictures(report: Report) -> dict[str, bytes]:
    """Every plot as a PNG, by the name of its file."""
    return {
        picture_name(report, section, plot): drawing.png(plot)
        for section in report.sections
        for plot in section.plots
    }


def picture_name(report: Report, section: Section, plot: Plot) -> str:
    """Name of the file of `plot`; with the snapshot's number where there are several."""
    if len(report.sections) == 1:
        return f"{plot.name}.png"
    return f"{section.anchor}-{plot.name}.png"
