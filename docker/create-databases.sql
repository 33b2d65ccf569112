-- Run once by the postgres image, on an empty volume, in the database POSTGRES_DB (mlflow).
-- MLflow, its accounts and Optuna each keep an alembic_version table: they cannot share a database.
CREATE DATABASE studies;
CREATE DATABASE accounts;
