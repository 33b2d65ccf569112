# The search: this package with CUDA libraries for NVIDIA GPUs and a PostgreSQL driver.
FROM python:3.11-slim-bookworm

ARG EXTRAS=gpu,postgres
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PYTHONUNBUFFERED=1

# Gigabytes of dependencies first: this layer stays as it is while only the code changes.
WORKDIR /src
COPY pyproject.toml requirements.lock README.md ./
COPY breakhis_search/__init__.py breakhis_search/
RUN pip install -c requirements.lock ".[${EXTRAS}]"

COPY experiments experiments
COPY breakhis_search breakhis_search
RUN pip install --no-deps --force-reinstall .

# Named volumes take over the owner of the folders they are mounted on.
RUN useradd --no-create-home --uid 1000 breakhis \
    && install --directory --owner=breakhis /cache /app /app/mlruns
USER breakhis
WORKDIR /app
