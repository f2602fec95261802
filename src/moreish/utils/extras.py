"""Libraries of optional extras."""

from importlib import import_module
from typing import Any

from moreish.errors import MoreishError


def import_extra(name: str, extra: str, what: str = "this") -> Any:
    """Import a module that only the extra `extra` of Moreish installs; `what` needs it.

    Raises:
        MoreishError: it is not installed; the message names the extra.
    """
    try:
        return import_module(name)
    except ImportError:
        library = name.partition(".")[0]
        raise MoreishError(
            f"{what} needs a library ({library}): pip install 'moreish[{extra}]'"
        ) from None
