"""The style of all figures, light and dark. The first two series, teal and orange, differ for the
color-blind as well."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
from cycler import cycler
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure

from moreish.utils.files import write_atomic


@dataclass(frozen=True, kw_only=True)
class Theme:
    """The colors of a figure."""

    paper: str
    ink: str
    faint: str
    grid: str
    series: tuple[str, ...]
    heat: tuple[str, ...]

    @property
    def colormap(self) -> Colormap:
        """The scale from zero to the largest value."""
        return LinearSegmentedColormap.from_list("heat", self.heat)


# The colors of the page of `moreish serve`.
LIGHT = Theme(
    paper="#fbfaf7",
    ink="#201d19",
    faint="#655f56",
    grid="#e3ded4",
    series=("#0f5d66", "#d9661f", "#5f9a2a", "#8a5fb0", "#a07a00", "#4f8fd0"),
    heat=("#fbfaf7", "#d5e6e8", "#8fbcc2", "#3d868f", "#0f4a52"),
)
DARK = Theme(
    paper="#171513",
    ink="#ece7df",
    faint="#a8a095",
    grid="#36322d",
    series=("#79c6cf", "#f0a070", "#a8cf5e", "#c9a6e8", "#e0c250", "#9cc4f5"),
    heat=("#171513", "#1c3a3f", "#2b5e66", "#4f9ba5", "#b5e6ec"),
)


@contextmanager
def use_theme(theme: Theme) -> Iterator[None]:
    """Give this style to figures that are made while the context is open."""
    settings: dict[Any, Any] = {
        **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), theme.paper),
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.titlecolor"), theme.ink),
        **dict.fromkeys(("axes.edgecolor", "grid.color"), theme.grid),
        **dict.fromkeys(("xtick.color", "ytick.color"), theme.faint),
        **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), 9.5),
        **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
        "axes.titlesize": 11,
        "axes.titlelocation": "left",
        "axes.labelsize": 10,
        "axes.axisbelow": True,
        "axes.prop_cycle": cycler(color=theme.series),
        "grid.linewidth": 0.6,
        "font.size": 10,
        "font.family": "DejaVu Sans",
        "svg.fonttype": "none",
        "svg.hashsalt": "moreish",
        "figure.constrained_layout.use": True,
    }
    with mpl.rc_context(settings):
        yield


def save(draw: Callable[[Theme], Figure], theme: Theme, path: Path) -> None:
    """Draw a figure and write it as SVG; equal figures give equal files."""
    file = BytesIO()
    with use_theme(theme), warnings.catch_warnings():
        # The viewer's fonts draw characters that this one lacks; only their width is estimated.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        metadata = {"Date": None, "Creator": "moreish"}
        draw(theme).savefig(file, format="svg", metadata=metadata)
    # A viewer without this font would fall back to a serif one.
    text = file.getvalue().replace(b"'DejaVu Sans'", b"'DejaVu Sans', Verdana, sans-serif")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, text)
