"""Commands that must fail as a user's error does."""

from finetune.cli import main


def fails(capsys, *arguments):
    """The one line on stderr of a command that must end with exit code 2."""
    capsys.readouterr()
    assert main(arguments) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("finetune: ")]
    assert len(lines) == 1, captured.err
    assert "Traceback" not in captured.err
    return lines[0]
