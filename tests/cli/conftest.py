"""The fixtures of the command line, and a browser for the page that it writes."""

from tests.browser import browser
from tests.command_line import cli, own_runs, three_runs

__all__ = ["browser", "cli", "own_runs", "three_runs"]
