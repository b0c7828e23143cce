"""Step 1: lists of clips, the Danger/Safe mapping, ESC-50, synthetic sounds, links to clips, splits by recording."""
