# Runs listen.py on amd64 and arm64; docs/raspberry-pi.md explains the commands.
#   docker build -t danger-safe .
#   docker run -d --init --restart unless-stopped -v ./listen.toml:/config/listen.toml:ro -v danger-safe:/data danger-safe
# /config has the settings (read-only); /data gets events.jsonl, the sounds of events and the converted network.
FROM python:3.13-slim-bookworm

# The newest ffmpeg of this Debian version, because it reads untrusted input and old versions have known vulnerabilities.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ffmpeg \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --home-dir /data --shell /usr/sbin/nologin listener \
    && install -d -o listener -g listener -m 0700 /data

WORKDIR /app
COPY requirements/predict.lock requirements/live.lock requirements/
RUN pip install --no-cache-dir --require-hashes -r requirements/live.lock

COPY LICENSE LICENCES.md pyproject.toml predict_danger.py listen.py ./
COPY danger_safe/ danger_safe/
COPY models/*.py models/compact.pth models/detector.npz models/
RUN python -m compileall -q danger_safe models

ENV DANGER_SAFE_CACHE=/data/cache \
    DANGER_SAFE_HEARTBEAT=/tmp/listening
USER 10001
WORKDIR /data
VOLUME /data
# listen.py touches this file every five seconds while it processes windows. The first start converts the network.
HEALTHCHECK --interval=30s --timeout=5s --start-period=3m \
    CMD ["sh", "-c", "test -n \"$(find /tmp/listening -mmin -1)\""]
ENTRYPOINT ["python", "/app/listen.py"]
CMD ["--config", "/config/listen.toml"]
