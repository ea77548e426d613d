"""What an operator sees of runs, as plain JSON values: gathered here, drawn by the command line and the page."""
