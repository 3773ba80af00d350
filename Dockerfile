# syntax=docker/dockerfile:1
# One target per stage: engine, router, rollout, ingest, lake, rewards, trainer; `demo` is everything on one CPU.
#
#     docker build --target ingest -t onstream-ingest .
#     docker build --target engine --build-arg ACCELERATOR=gpu --build-arg TORCH_BACKEND=cu130 -t onstream-engine .
#
# An environment is resolved against images/constraints-<accelerator>.txt, which `make pins` writes; what runs has
# no compiler but where a kernel is compiled at run time, no package manager's cache, and no root.
ARG PYTHON=3.11.14-slim-bookworm
ARG ACCELERATOR=cpu
ARG TORCH_BACKEND=cpu

# -- environments

FROM python:${PYTHON} AS build
ARG ACCELERATOR
ARG TORCH_BACKEND
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never VIRTUAL_ENV=/opt/onstream
RUN pip install --no-cache-dir uv==0.13.9 && uv venv "$VIRTUAL_ENV"
WORKDIR /src
COPY pyproject.toml README.md LICENSE overrides.txt ./
COPY images/ images/
COPY infra/ infra/
COPY ingest/ ingest/
COPY rewards/ rewards/
COPY serving/ serving/
COPY trainer/ trainer/

FROM build AS core-env
RUN uv pip install --constraint "images/constraints-${ACCELERATOR}.txt" --override overrides.txt '.[stores]'

FROM build AS trainer-env
RUN uv pip install --torch-backend "${TORCH_BACKEND}" \
    --constraint "images/constraints-${ACCELERATOR}.txt" --override overrides.txt '.[stores,trainer]'

FROM build AS engine-env
RUN uv pip install --torch-backend "${TORCH_BACKEND}" \
    --constraint "images/constraints-${ACCELERATOR}.txt" --override overrides.txt ".[stores,engine-${ACCELERATOR}]"

FROM build AS demo-env
RUN uv pip install --torch-backend cpu \
    --constraint images/constraints-cpu.txt --override overrides.txt '.[cpu,demo]'

# -- what runs

FROM python:${PYTHON} AS runtime
ENV PATH=/opt/onstream/bin:$PATH PYTHONUNBUFFERED=1 HOME=/tmp
RUN groupadd --gid 10001 onstream \
    && useradd --uid 10001 --gid onstream --no-create-home --home-dir /tmp --shell /usr/sbin/nologin onstream \
    && install --directory --owner onstream --group onstream /var/lib/onstream
WORKDIR /var/lib/onstream
USER 10001:10001
STOPSIGNAL SIGTERM

FROM runtime AS core
COPY --from=core-env /opt/onstream /opt/onstream

FROM core AS router
ENTRYPOINT ["python", "-m", "serving", "router"]
CMD ["--config", "/etc/onstream/onstream.yaml"]

FROM core AS rollout
ENTRYPOINT ["python", "-m", "serving", "rollout"]
CMD ["--config", "/etc/onstream/onstream.yaml"]

FROM core AS ingest
ENTRYPOINT ["python", "-m", "ingest"]
CMD ["--config", "/etc/onstream/onstream.yaml"]

FROM core AS lake
ENTRYPOINT ["python", "-m", "ingest", "lake"]
CMD ["--config", "/etc/onstream/onstream.yaml"]

FROM core AS rewards
ENTRYPOINT ["python", "-m", "rewards"]
CMD ["--config", "/etc/onstream/onstream.yaml"]

# On a GPU, engine and trainer compile kernels by Triton, which needs a C compiler for their launchers.
FROM runtime AS gpu-system
USER 0:0
# hadolint ignore=DL3008  # Debian keeps one version of a package: a pin breaks with its next security update
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
USER 10001:10001

FROM runtime AS trainer-cpu-system
FROM gpu-system AS trainer-gpu-system
ENV PYTORCH_ALLOC_CONF=expandable_segments:True

# hadolint ignore=DL3006  # a stage of this file
FROM trainer-${ACCELERATOR}-system AS trainer
COPY --from=trainer-env /opt/onstream /opt/onstream
ENTRYPOINT ["python", "-m", "trainer"]
CMD ["--config", "/etc/onstream/onstream.yaml"]

# vLLM's CPU kernels need libnuma.
FROM runtime AS engine-cpu-system
USER 0:0
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends libnuma1 && rm -rf /var/lib/apt/lists/*
USER 10001:10001

FROM gpu-system AS engine-gpu-system

# hadolint ignore=DL3006
FROM engine-${ACCELERATOR}-system AS engine
COPY --from=engine-env /opt/onstream /opt/onstream
ENTRYPOINT ["python", "-m", "serving", "engine"]
CMD ["--config", "/etc/onstream/onstream.yaml"]

# The demo, as `make demo` runs it: docker run --rm -it --shm-size 1g -p 8000:8000 onstream-demo
FROM engine-cpu-system AS demo
COPY --from=demo-env /opt/onstream /opt/onstream
COPY examples/ examples/
ENTRYPOINT ["sh", "-c", "python examples/demo/model.py .onstream/model && exec python examples/demo \"$@\"", "demo"]
CMD ["--plain"]
