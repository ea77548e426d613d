"""The fixtures of the page: a browser, and a bucket with runs."""

from tests.browser import browser
from tests.command_line import cli, own_runs, three_runs

__all__ = ["browser", "cli", "own_runs", "three_runs"]
