# listen.py in a container, for amd64 and arm64; docs/raspberry-pi.md has the commands.
#   docker build -t danger-safe .
#   docker run -d --init --restart unless-stopped -v ./listen.toml:/config/listen.toml:ro -v danger-safe:/data danger-safe
# In /config, read-only: what it listens to. In /data: events.jsonl, the sounds of events, the network made ready.
FROM python:3.13-slim-bookworm

# The newest ffmpeg of this Debian: it reads what strangers send, and old ones have known holes.
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
# The file is touched every five seconds while windows are heard; the first time, the network is made ready before.
HEALTHCHECK --interval=30s --timeout=5s --start-period=3m \
    CMD ["sh", "-c", "test -n \"$(find /tmp/listening -mmin -1)\""]
ENTRYPOINT ["python", "/app/listen.py"]
CMD ["--config", "/config/listen.toml"]
