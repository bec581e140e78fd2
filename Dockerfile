# syntax=docker/dockerfile:1
FROM python:3.13-slim AS build
WORKDIR /app
COPY requirements.txt ./
RUN python -m venv /venv \
    && /venv/bin/pip install --no-cache-dir --only-binary :all: -r requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY migrations migrations
RUN /venv/bin/pip install --no-cache-dir --no-deps .

FROM python:3.13-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /data scheduler \
    && install -d -o scheduler -g scheduler -m 0700 /data
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH SERVER_HOST=0.0.0.0 DATA_DIR=/data PYTHONUNBUFFERED=1
USER scheduler
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ.get('SERVER_PORT', '8080')}/health\", timeout=2)"]
ENTRYPOINT ["tini", "--", "scheduler"]
CMD ["serve"]
