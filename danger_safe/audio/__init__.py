"""Sound in: decoding, streams, windows over them, what recordings go through, quiet rooms."""
