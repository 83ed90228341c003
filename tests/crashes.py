"""A training that ends in the middle of a step."""

from finetune.training import loop


class Crash(BaseException):
    """Ends a training as abruptly as a test in the same process can."""


def crash_at(monkeypatch, step):
    """Let the loop die in the middle of the given step, after the weights have changed."""
    original = loop._training_record

    def dying(job, state, *rest):
        if state.step >= step:
            raise Crash
        return original(job, state, *rest)

    monkeypatch.setattr(loop, "_training_record", dying)
