"""What a stored object looks like: keys, metadata, JSON. Pure: nothing here makes a request."""
