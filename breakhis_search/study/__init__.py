"""The search: Optuna proposes hyperparameters, a trial trains and scores them by patient."""
