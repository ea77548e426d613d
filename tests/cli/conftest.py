"""The fixtures of the command line."""

from tests.command_line import cli, own_runs, three_runs

__all__ = ["cli", "own_runs", "three_runs"]
