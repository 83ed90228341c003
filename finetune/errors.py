"""The exceptions that the command line turns into a line on stderr and an exit code."""

import errno


class UserError(Exception):
    """Bad input. The message names the file, row or key, the offending value and the fix; the exit code is 2."""


class Interrupted(Exception):  # noqa: N818  # not an error: it was asked for
    """A training was asked to stop by a signal and has saved its state; the exit code is 128 + the signal's number."""

    def __init__(self, step: int, signal_number: int) -> None:
        super().__init__(f"stopped at step {step}, which is saved")
        self.signal_number = signal_number


def is_disk_full(error: BaseException) -> bool:
    """Whether an error of any library says that the disk, or the user's share of it, is full."""
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(error)
