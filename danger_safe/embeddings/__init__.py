"""Step 2: plan an extraction, embed clips, keep a journal, write and read the table."""
