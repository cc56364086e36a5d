"""Measures the shipped code."""
