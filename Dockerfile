# Seline as a server. A bot that embeds it does not need this image: see docs/deploy.md.
# The platform mounts the volume; Railway refuses to build an image with an instruction for it.

FROM python:3.13-slim AS build
WORKDIR /src
COPY requirements.lock ./
RUN python -m venv /venv \
 && /venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY seline ./seline
COPY workers ./workers
RUN /venv/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps .

FROM python:3.13-slim
RUN groupadd --system --gid 10001 seline \
 && useradd --system --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin seline
COPY --from=build /venv /venv
# With PORT the server listens on every address; the platform may set another port.
ENV PATH="/venv/bin:$PATH" PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PORT=8080
WORKDIR /app
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f\"http://127.0.0.1:{os.environ['PORT']}/livez\", timeout=4)"]
# Starts as root only to change the owner of the mount's top directory, then drops root for good.
ENTRYPOINT ["python", "-m", "seline.server.container"]
CMD ["serve"]
