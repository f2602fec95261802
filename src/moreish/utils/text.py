"""Text for messages."""


def plural(count: int, noun: str) -> str:
    """Format a count with its noun.

    >>> plural(1, "line"), plural(2000, "line")
    ('1 line', '2,000 lines')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def shorten(value: object) -> str:
    """Return a value as text for a message, cut to 100 characters."""
    text = str(value)
    return text if len(text) <= 100 else f"{text[:99]}…"
