"""Hypothesis strategies and checks for masks and score functions."""
