"""The network: Cnn14 (models.py), its checkpoints (checkpoints.py) and the engine that runs it (engine.py)."""
