"""finetune_cnn14.py: the training loop, its settings, worse recordings, sounds on disk, held-out score."""
