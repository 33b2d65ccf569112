"""All that is computed from a predictions table: metrics, curves, figures, the trial's page."""
