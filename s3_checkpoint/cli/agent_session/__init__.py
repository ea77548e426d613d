"""The commands behind `session`: one Claude Agent SDK session."""
