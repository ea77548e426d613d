"""The commands behind `thread`, a file for each: what is done to one LangGraph thread."""
