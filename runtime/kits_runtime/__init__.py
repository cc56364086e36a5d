"""Runs bundles on CT scans, without torch."""
