"""Honest, patient-disjoint model search on BreaKHis: Optuna drives Keras, MLflow keeps the record.

Importing this package imports neither TensorFlow nor MLflow nor Optuna.
"""

__version__ = "0.1.0"
