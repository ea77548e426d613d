"""The steps of one run on any object store: commit, search for the latest, listing, retention, forks."""
