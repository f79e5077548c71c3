"""Sessions: a guest runs, its events reach the models."""
