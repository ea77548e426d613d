"""The families of keys under a prefix: everything the library writes begins with one of them, and nothing else does.

Written down here alone: keys are built from it, policies grant it, and tests compare templates, policy files and pages
with it.
"""

from __future__ import annotations

RUNS = "runs"
"""Runs of graph engines; `keys` has their grammar."""
THREADS = "threads"
"""Conversation threads of the LangGraph saver; `thread_keys` has their grammar."""
SESSIONS = "sessions"
"""Sessions of the Claude Agent SDK."""
MEMORIES = "memories"
"""Items of the LangGraph store, its long-term memory; `memory_keys` has their grammar."""

KEY_FAMILIES = (RUNS, THREADS, SESSIONS, MEMORIES)
