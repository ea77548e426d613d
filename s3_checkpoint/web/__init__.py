"""The page of `s3-checkpoint serve`: runs and threads in a browser, read-only, on loopback. Needs the extra `web`."""
