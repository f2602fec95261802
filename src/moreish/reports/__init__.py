"""Reports as HTML pages: of runs, of ladders, and of `moreish doctor`."""

from moreish.reports.doctor import check_doctor_report_path, doctor_report_html
from moreish.reports.html import write_report
from moreish.reports.ladder import ladder_report_html
from moreish.reports.run import RunFigure, run_report_html
