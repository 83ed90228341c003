"""The fixture `make_run`, for all tests of reporting."""

from reporting.fake_runs import make_run

__all__ = ["make_run"]
