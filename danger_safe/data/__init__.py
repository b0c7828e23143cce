"""Step 1: clips and their mapping, ESC-50, synthetic sounds, the Danger and Safe folders, held-out recordings."""
