"""Reasons for which generation is refused or ends before it is complete."""


class EngineError(Exception):
    """Base class of these reasons."""


class QueueFull(EngineError):  # noqa: N818 (the exceptions here are named for the state)
    """Too much work is waiting."""

    def __init__(self, retry_after: int) -> None:
        """
        Args:
            retry_after: estimated seconds until there is room.
        """
        super().__init__(f"too many requests are waiting: try again in {retry_after} s")
        self.retry_after = retry_after


class ShuttingDown(EngineError):  # noqa: N818
    """The server is stopping."""


class DeadlineExceeded(EngineError):  # noqa: N818
    """The request took longer than the server allows."""


class GenerationFailed(EngineError):  # noqa: N818
    """The model raised an exception, which is in the log."""
