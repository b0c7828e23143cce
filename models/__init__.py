"""The networks (Cnn14 in models.py), their checkpoints (checkpoints.py) and the engines that run them (engine.py)."""
