"""Pictures of runs: what they learned, how, and what they look at."""

from moreish.figures.draw import ladder as draw_ladder
from moreish.figures.draw import lr_range as draw_lr_range
from moreish.figures.pictures import THEMES, Picture, make
from moreish.figures.report import check_doctor_page, doctor_page, ladder_page, run_page, write
from moreish.figures.style import LIGHT, save, themed

__all__ = [
    "LIGHT",
    "THEMES",
    "Picture",
    "check_doctor_page",
    "doctor_page",
    "draw_ladder",
    "draw_lr_range",
    "ladder_page",
    "make",
    "run_page",
    "save",
    "themed",
    "write",
]
