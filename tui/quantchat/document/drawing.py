"""Draw plots with Matplotlib: as SVG for a light or dark page, or as PNG.

Neither pyplot nor the settings of the user's matplotlibrc are used. Variants differ in colour, line
and marker. The colours are those of Okabe and Ito, "Color Universal Design" (2008), which readers
with any colour vision can distinguish.
"""

from __future__ import annotations

import io
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from quantchat import paths
from quantchat.document.document import Document, Plot
from quantchat.errors import UserError
from quantchat.text import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

INK = "#1b1f24"
_QUIET = "#59636e"
PAPER = "#ffffff"
_LINE = "#d1d9e0"
_SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
_DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.2, 1, 1.2)))
_MARKERS = ("o", "s", "^", "D", "v")

PARTS = ("#56b4e9", "#d55e00", "#e69f00", "#009e73", "#f0e442", "#cc79a7", "#bbbbbb")
HATCHES = ("", "--", "//", "..", "\\\\", "xx", "")
"""Fill colours (`PARTS`) and hatches of the parts of a bar, in the order of the parts."""

# Key: a colour; value: the CSS variable that replaces it in an HTML page. In dark mode the page
# gives the variables other colours.
_VARIABLES = {
    INK: "var(--ink)",
    _QUIET: "var(--quiet)",
    _LINE: "var(--line)",
    PAPER: "var(--paper)",
    **{colour: f"var(--series-{place})" for place, colour in enumerate(_SERIES)},
}
_COLOUR = re.compile("|".join(_VARIABLES))

_STYLE: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": _QUIET,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": PAPER,
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
    "hatch.color": INK,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "legend.handlelength": 3.2,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "svg.fonttype": "none",  # text stays text, for search, copying and screen readers
    "svg.hashsalt": "quantchat",  # the same snapshot gives the same file
    "text.color": INK,
    "text.parse_math": False,  # a label may contain a $
    "xtick.color": _QUIET,
    "xtick.labelcolor": INK,
    "ytick.color": _QUIET,
    "ytick.labelcolor": INK,
}

_SIZE_IN = (6.0, 3.1)
_PNG_DPI = 160
_WIDE = 6
"""If the ends of a logarithmic axis differ by this factor or more, it has ticks at 1, 2 and 5 times
powers of 10."""


def series_style(place: int, order: str = "in-turn") -> dict[str, Any]:
    """Return colour, line and marker of the variant at `place`, as arguments for Matplotlib.

    The markers of answers that both variants computed at once (`order` is `together`) are hollow,
    because a chat may contain answers of both orders.
    """
    colour = _SERIES[place % len(_SERIES)]
    return {
        "color": colour,
        "linestyle": _DASHES[place % len(_DASHES)],
        "marker": _MARKERS[place % len(_MARKERS)],
        "markerfacecolor": PAPER if order == "together" else colour,
    }


def pictures(document: Document) -> dict[str, bytes]:
    """Return every plot of `document` as a PNG, by the name of its file."""
    return {picture_name(plot): png(plot) for plot in document.plots()}


def picture_name(plot: Plot) -> str:
    """Return the name of the file of `plot`."""
    return f"{plot.name}.png"


def png(plot: Plot) -> bytes:
    """Return `plot` as a PNG on white with its title."""
    return _saved(plot, "png", title=True)


def svg(plot: Plot) -> str:
    """Return `plot` as an SVG element for an HTML page. The page defines the colours and the font.

    The element needs no XML namespace, and refers to no other file.
    """
    # This is Matplotlib's own output, with escaped labels.
    root = ElementTree.fromstring(_saved(plot, "svg", title=False))  # noqa: S314
    for element in root.iter():
        element.tag = _local(element.tag)
        attributes = {_local(name): value for name, value in element.attrib.items()}
        if element.tag == "g":
            attributes.pop("id", None)  # not needed, and the same in each plot of a page
        for name in attributes.keys() & {"style", "fill", "stroke"}:
            attributes[name] = _COLOUR.sub(lambda match: _VARIABLES[match[0]], attributes[name])
        if element.tag == "text":
            style = attributes.get("style", "")
            attributes["style"] = re.sub(r"font-family: [^;]*;? ?", "", style)
        element.attrib = attributes
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in ("metadata", "style"):
                parent.remove(child)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib.update({"role": "img", "aria-label": plot.title})
    return ElementTree.tostring(root, encoding="unicode")


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _saved(plot: Plot, kind: str, *, title: bool) -> bytes:
    _import_matplotlib()
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties

    with _styled():
        width, height = _SIZE_IN
        figure = Figure(figsize=(width, height * plot.height), layout="constrained")
        plot.draw(figure)
        if title and figure.legends:
            figure.legends[0].set_title(plot.title, prop=FontProperties(weight="bold"))
        elif title:
            figure.suptitle(plot.title, x=0.01, ha="left", weight="bold", size="medium")
        file = io.BytesIO()
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(file, format=kind, dpi=_PNG_DPI, metadata=metadata)
    return file.getvalue()


def _import_matplotlib() -> None:
    """Import Matplotlib with a backend that needs no display. Raises UserError.

    MPLBACKEND is replaced even if it is set: a terminal that was opened in a notebook inherits a
    value that names a module which is not installed here. Without a home directory, Matplotlib
    stores its list of fonts in quantchat's cache.
    """
    if "matplotlib" in sys.modules:
        return
    os.environ["MPLBACKEND"] = "agg"
    if not paths.has_home():
        os.environ.setdefault("MPLCONFIGDIR", str(paths.private(paths.cache_dir() / "matplotlib")))
    try:
        import matplotlib  # noqa: F401
    except Exception as error:  # a bad folder or matplotlibrc raises many types
        raise UserError(
            f"matplotlib, which draws the plots, does not start: {one_line(str(error))[:200]}",
            hint="set MPLCONFIGDIR to a folder that can be written, and check any matplotlibrc",
        ) from error


@contextmanager
def _styled() -> Iterator[None]:
    import matplotlib as mpl

    with mpl.rc_context(), warnings.catch_warnings():
        # The font may lack letters of a label: an HTML page shows them, a PNG shows boxes.
        warnings.filterwarnings("ignore", message=r"Glyph \d+")
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


# ------------------------------------------------------------ axes


def legend(figure: Figure, columns: int = 1) -> None:
    """Put the legend of the first axes above all axes."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, alignment="left")


def from_zero(axes: Axes, highest: float) -> None:
    """Start the vertical axis at 0, so that heights are proportional to the values."""
    axes.set_ylim(0, 1.08 * highest or 1)


def logarithmic(axes: Axes) -> None:
    """Make the horizontal axis logarithmic, with few ticks as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    axes.set_xscale("log", nonpositive="clip")
    low, high = axes.get_xlim()
    if high < _WIDE * low:
        axes.xaxis.set_major_locator(MaxNLocator(8, steps=(1, 2, 2.5, 5, 10)))
    else:
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def whole_ticks(axis: Axis) -> None:
    """Put ticks at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True))
