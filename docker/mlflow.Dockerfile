# The MLflow server with a PostgreSQL driver, in the versions the workers use.
FROM python:3.11-slim-bookworm

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore

COPY requirements.lock /tmp/requirements.lock
RUN pip install -c /tmp/requirements.lock "mlflow[auth]" psycopg2-binary

# A named volume takes over the owner of the folder it is mounted on.
RUN useradd --create-home --uid 1000 mlflow && install --directory --owner=mlflow /artifacts
USER mlflow
WORKDIR /home/mlflow
EXPOSE 5000
