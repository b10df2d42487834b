"""What a command line may fail with: what happened, what to do, and an exit code for scripts.

0  done
1  an error
2  it cannot be used as given: wrong usage, or a bundle that does not fit the cameras
3  the rollout did not succeed: halted, cancelled, or a camera failed
4  fleetd cannot be reached
5  not allowed
130 interrupted
"""

from typing import Final

ERROR: Final = 1
UNUSABLE: Final = 2
NOT_SUCCEEDED: Final = 3
UNREACHABLE: Final = 4
NOT_ALLOWED: Final = 5


class CliError(Exception):
    """A failure in two lines. `todo` is what the operator can do about it."""

    def __init__(self, message: str, todo: str = "", *, exit_code: int = ERROR, code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.todo = todo
        self.exit_code = exit_code
        self.code = code  # the server's error code, if it was the server's


class UnreachableError(CliError):
    """No answer from fleetd."""

    def __init__(self, message: str, todo: str) -> None:
        super().__init__(message, todo, exit_code=UNREACHABLE)
