"""Run the command line: `python -m moreish` is the same as `moreish`."""

from moreish.cli import main

main()
