# The image of every step on a cluster, of Beam's workers and of the model server: our wheel on the locked packages.
#
#   docker build --build-arg REVISION="$(git rev-parse HEAD)" -t evergreen .
#   docker run --rm -v "$PWD/data:/app/data" -v "$PWD/runs:/app/runs" evergreen
ARG BASE=python:3.10-slim-bookworm

# --- the packages of the lock, checked by their hashes, and our own wheel -------------------------------------------
FROM ${BASE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 UV_LINK_MODE=copy UV_NO_CACHE=1
WORKDIR /src
# Two packages of the lock come as C++ sources; the compiler stays in this stage.
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*

# The lock alone decides this layer: a change of our code does not install 3 GB again.
COPY requirements.lock ./
RUN python -m venv /opt/evergreen \
 && awk 'index($0, "uv==") == 1 { on = 1 } on { print } on && !/\\$/ { exit }' requirements.lock > /tmp/uv.lock \
 && /opt/evergreen/bin/pip install --no-deps --require-hashes --only-binary :all: -r /tmp/uv.lock \
 && /opt/evergreen/bin/uv pip sync --python /opt/evergreen/bin/python --require-hashes requirements.lock

COPY . .
RUN /opt/evergreen/bin/python -m pip wheel --no-deps --no-build-isolation --no-index --wheel-dir /tmp/wheels . \
 && /opt/evergreen/bin/python -m pip install --no-deps --no-index /tmp/wheels/*.whl

# --- what runs -------------------------------------------------------------------------------------------------------
FROM ${BASE}
ARG REVISION=unknown
LABEL org.opencontainers.image.title="evergreen" org.opencontainers.image.revision="${REVISION}"
ENV PATH=/opt/evergreen/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
COPY --from=build /opt/evergreen /opt/evergreen
# evergreen/revision.py reads it: an image has no git.
RUN printf '%s\n' "${REVISION}" > /opt/evergreen/lib/python3.10/site-packages/REVISION
WORKDIR /app
COPY configs configs
COPY schemas schemas
COPY local_runner.py ./
# A number, so that a cluster can see that it is not root; the folders that a run writes to belong to it.
RUN mkdir -p data runs && chown 10001:10001 /app data runs
USER 10001:10001
CMD ["python", "local_runner.py"]
