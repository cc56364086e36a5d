"""Trains the nets of the systems: losses, optimisers, the loop, validation, checkpoints."""
