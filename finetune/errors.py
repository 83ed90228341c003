"""The one exception that means: the user can mend this. The command line prints it and exits with 2."""


class UserError(Exception):
    """Bad input. The message names the file, row or key, the offending value and the fix."""
