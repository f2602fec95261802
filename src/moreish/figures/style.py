"""The style of all figures, light and dark, readable by the color-blind (Okabe and Ito 2008)."""

import warnings
from collections.abc import Iterator
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

    name: str
    paper: str
    ink: str
    faint: str
    grid: str
    series: tuple[str, ...]
    heat: tuple[str, ...]

    @property
    def colormap(self) -> Colormap:
        """The scale from zero to the largest value."""
        return LinearSegmentedColormap.from_list(self.name, self.heat)


LIGHT = Theme(
    name="light",
    paper="#ffffff",
    ink="#1f2328",
    faint="#656d76",
    grid="#d8dee4",
    series=("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9"),
    heat=("#ffffff", "#cfe4f3", "#7db8de", "#2f86c1", "#0b4f86"),
)
DARK = Theme(
    name="dark",
    paper="#0d1117",
    ink="#e6edf3",
    faint="#9aa4af",
    grid="#30363d",
    series=("#56b4e9", "#e69f00", "#2fc79a", "#e3a3c8", "#f0e442", "#7aa2ff"),
    heat=("#0d1117", "#12324d", "#1d5f8f", "#4aa3dc", "#c9e8ff"),
)

THEMES = ((LIGHT, ""), (DARK, "-dark"))
"""The themes, and the suffix of their files."""


@contextmanager
def use_theme(theme: Theme) -> Iterator[None]:
    """Gives this style to figures that are made while the context is open."""
    settings: dict[Any, Any] = {
        "figure.facecolor": theme.paper,
        "axes.facecolor": theme.paper,
        "savefig.facecolor": theme.paper,
        "text.color": theme.ink,
        "axes.labelcolor": theme.ink,
        "axes.edgecolor": theme.grid,
        "axes.titlecolor": theme.ink,
        "axes.titlesize": 11,
        "axes.titlelocation": "left",
        "axes.labelsize": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.prop_cycle": cycler(color=theme.series),
        "xtick.color": theme.faint,
        "ytick.color": theme.faint,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "grid.color": theme.grid,
        "grid.linewidth": 0.6,
        "legend.frameon": False,
        "legend.fontsize": 9,
        "font.size": 10,
        "font.family": "DejaVu Sans",
        "svg.fonttype": "none",
        "svg.hashsalt": "moreish",
        "figure.constrained_layout.use": True,
    }
    with mpl.rc_context(settings):
        yield


def save(figure: Figure, path: Path) -> None:
    """Writes a figure as SVG; equal figures give equal files."""
    file = BytesIO()
    with warnings.catch_warnings():
        # The viewer's fonts draw characters that this one lacks; only their width is estimated.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": "moreish"})
    # A viewer without this font would fall back to a serif one.
    text = file.getvalue().replace(b"'DejaVu Sans'", b"'DejaVu Sans', Verdana, sans-serif")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, text)
