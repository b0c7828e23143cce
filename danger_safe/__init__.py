"""What the pipeline's scripts share: sound files, tables, evaluation, pictures."""
