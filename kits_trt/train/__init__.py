"""A short training path for the default bundle: phantoms in, checkpoints out."""
