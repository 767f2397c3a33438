# The CPU build. From the root of the repository: docker build -f packaging/docker/cpu.Dockerfile -t dnagpt-fast .
FROM python:3.12-slim-bookworm AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN DNAGPT_FAST_CUDA=0 pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim-bookworm
COPY --from=build /wheels /wheels
# The default index has torch with CUDA, several GB larger: --build-arg TORCH_INDEX=URL of PyTorch's index of CPU builds
ARG TORCH_INDEX=""
# hadolint ignore=DL3013
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch==2.13.0 \
    && pip install --no-cache-dir /wheels/*.whl \
    && rm -r /wheels \
    && useradd --create-home --uid 10001 dnagpt
USER 10001
WORKDIR /data
ENTRYPOINT ["dnagpt-fast"]
CMD ["--help"]
