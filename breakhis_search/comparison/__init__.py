"""Which model is best, read from MLflow alone, and what may be registered and promoted."""
