"""Audio input: decoding, live streams, windows, and corruptions and room tone for training and tests."""
