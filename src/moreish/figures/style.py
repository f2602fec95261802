"""The style of all figures, light and dark, readable by the color-blind (Okabe and Ito 2008)."""

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


LIGHT = Theme(
    paper="#ffffff",
    ink="#1f2328",
    faint="#656d76",
    grid="#d8dee4",
    series=("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9"),
    heat=("#ffffff", "#cfe4f3", "#7db8de", "#2f86c1", "#0b4f86"),
)
DARK = Theme(
    paper="#0d1117",
    ink="#e6edf3",
    faint="#9aa4af",
    grid="#30363d",
    series=("#56b4e9", "#e69f00", "#2fc79a", "#e3a3c8", "#f0e442", "#7aa2ff"),
    heat=("#0d1117", "#12324d", "#1d5f8f", "#4aa3dc", "#c9e8ff"),
)


@contextmanager
def use_theme(theme: Theme) -> Iterator[None]:
    """Give this style to figures that are made while the context is open."""
    settings: dict[Any, Any] = {
        **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), theme.paper),
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.titlecolor"), theme.ink),
        **dict.fromkeys(("axes.edgecolor", "grid.color"), theme.grid),
        **dict.fromkeys(("xtick.color", "ytick.color"), theme.faint),
        **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), 9),
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
