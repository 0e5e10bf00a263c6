# The image of every step on a cluster, of Beam's workers and of the model server: our wheel on locked packages.
#
#   make image                                       # where there is no Docker: buildah, on a base of its own making
#   docker build --build-arg VARIANT=cpu --build-arg REVISION="$(git rev-parse HEAD)" -t evergreen:1 .
#   docker build --build-arg VARIANT=gpu --build-arg BASE=python@sha256:... -t evergreen:1-gpu .
#
# BASE is any Debian 12 with a Python 3.10 on the path; give it by digest where the image is to be the same tomorrow.
ARG BASE=python:3.10.18-slim-bookworm
# The stage, or an image that was made of it: buildah copies all packages anew to see that a COPY of them is cached.
ARG RUNTIME=runtime

# --- what builds -------------------------------------------------------------------------------------------------------
FROM ${BASE} AS tools
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 UV_LINK_MODE=copy PYC_INVALIDATION_MODE=UNCHECKED_HASH \
    PIP_CERT=/etc/ssl/certs/ca-certificates.crt SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
WORKDIR /src
# A few packages come as C++ sources; the compiler stays here, and so do pip, uv and setuptools.
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
COPY image/tools.lock ./
RUN python -m venv /opt/tools \
 && /opt/tools/bin/python -m pip install --quiet --require-hashes --only-binary :all: -r tools.lock

# --- the packages: decided by the lock alone, so that a change of our code installs nothing again ---------------------
FROM tools AS packages
# cpu: TensorFlow without CUDA, half as large. gpu: TensorFlow with NVIDIA's libraries.
ARG VARIANT=cpu
COPY image/${VARIANT}.lock ./image.lock
RUN --mount=type=cache,target=/root/.cache/uv \
    /opt/tools/bin/uv venv --quiet --no-project --python "$(command -v python)" /opt/evergreen \
 && /opt/tools/bin/uv pip sync --quiet --no-config --compile-bytecode --python /opt/evergreen/bin/python \
        --require-hashes --build-constraints image.lock image.lock \
 && cd /opt/evergreen/lib/python3.10/site-packages \
 && rm -rf tensorflow/include pyarrow/include pyarrow/src pyarrow/tests numpy/tests pandas/tests \
 && find . \( -name '*.a' -o -name '*.pyi' \) -type f -delete
RUN /opt/tools/bin/cyclonedx-py environment --output-reproducible --of JSON --output-file /opt/sbom.cdx.json \
        /opt/evergreen/bin/python

# --- what runs, but for our code ---------------------------------------------------------------------------------------
FROM ${BASE} AS runtime
ENV PATH=/opt/evergreen/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONWARNINGS=ignore::FutureWarning \
    HOME=/tmp
COPY --from=packages /opt/evergreen /opt/evergreen
COPY --from=packages /opt/sbom.cdx.json /usr/share/sbom/evergreen.cdx.json
# A number, so that a cluster can see that it is not root; the folders that a run writes to belong to it.
WORKDIR /app
RUN mkdir -p data runs && chown 10001:10001 /app data runs

# --- our own wheel, a few hundred kilobytes ---------------------------------------------------------------------------
FROM tools AS wheel
COPY . .
ARG REVISION=unknown
# evergreen/revision.py reads it: an image has no git.
RUN /opt/tools/bin/python -m pip wheel --quiet --no-deps --no-build-isolation --no-index --wheel-dir /tmp/wheels . \
 && /opt/tools/bin/python -m pip install --quiet --no-deps --no-index --no-compile --target /opt/ours /tmp/wheels/*.whl \
 && rm -rf /opt/ours/bin \
 && printf '%s\n' "${REVISION}" > /opt/ours/REVISION \
 && python -m compileall -q --invalidation-mode unchecked-hash /opt/ours

# --- what runs --------------------------------------------------------------------------------------------------------
FROM ${RUNTIME}
COPY --from=wheel /opt/ours /opt/evergreen/lib/python3.10/site-packages
COPY configs configs
COPY schemas schemas
COPY local_runner.py ./
ARG VARIANT=cpu
ARG REVISION=unknown
ARG LOCK=unknown
LABEL org.opencontainers.image.title="evergreen" org.opencontainers.image.revision="${REVISION}" \
      evergreen.variant="${VARIANT}" evergreen.lock.sha256="${LOCK}"
USER 10001:10001
CMD ["python", "local_runner.py"]
