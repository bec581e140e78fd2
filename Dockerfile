# syntax=docker/dockerfile:1
# Stages: build makes /venv, app is what runs, test is app with the tests, and the last is app again,
# so that a plain `docker build .` makes what runs.

FROM python:3.13-slim-bookworm AS build
WORKDIR /app
COPY requirements.txt ./
RUN python -m venv /venv \
    && /venv/bin/pip install --no-cache-dir --only-binary :all: -r requirements.txt
# What makes the wheel is thrown away with this stage.
RUN python -m venv /wheel \
    && /wheel/bin/pip install --no-cache-dir --only-binary :all: "hatchling>=1.27,<2"
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY migrations migrations
RUN /wheel/bin/python -m hatchling build -t wheel -d /dist \
    && /venv/bin/pip install --no-cache-dir --no-deps --no-index /dist/*.whl \
    && /venv/bin/pip uninstall -y pip

FROM python:3.13-slim-bookworm AS app
# Debian keeps one version of a package: a pin would break the build at its next security fix.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /data scheduler \
    && install -d -o scheduler -g scheduler -m 0700 /data
LABEL org.opencontainers.image.title="Scheduler" \
      org.opencontainers.image.description="A self-hosted scheduler for a team's HTTP calls" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH SERVER_HOST=0.0.0.0 DATA_DIR=/data PYTHONUNBUFFERED=1
WORKDIR /data
USER 10001
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
# A worker answers too, where it runs with --health-port on the same port.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ.get('SERVER_PORT', '8080')}/health\", timeout=2)"]
ENTRYPOINT ["tini", "--", "scheduler"]
CMD ["serve"]

FROM app AS test
WORKDIR /app
USER 0
COPY requirements-dev.txt ./
RUN python -m ensurepip \
    && python -m pip install --no-cache-dir --only-binary :all: -r requirements-dev.txt
COPY . .
RUN chown 10001 /app
USER 10001
HEALTHCHECK NONE
ENTRYPOINT ["tini", "--", "python", "-m", "pytest", "-p", "no:cacheprovider"]
CMD []

FROM app
