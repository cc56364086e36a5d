"""Scores of predicted label maps by the rules of the KiTS challenges; needs no torch."""
