"""finetune_cnn14.py: the training loop, its settings, augmentation, waveforms on disk, validation."""
