"""Scores with intervals, baselines and plots."""
