"""Scores with confidence intervals, baselines and plots."""
