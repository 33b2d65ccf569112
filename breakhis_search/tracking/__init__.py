"""The record of every run: written to a local journal first, then delivered to MLflow."""
