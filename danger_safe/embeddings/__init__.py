"""Step 2: what is to be embedded, the engine fed, what is finished, the table written and read."""
