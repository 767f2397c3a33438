# With CUDA kernels. From the root of the repository: docker build -f packaging/docker/cuda.Dockerfile -t dnagpt-fast:cuda .
# The host needs an NVIDIA driver for CUDA 13 and the NVIDIA Container Toolkit: docker run --gpus all dnagpt-fast:cuda doctor
FROM nvidia/cuda:13.0.1-devel-ubuntu24.04 AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
ARG DNAGPT_FAST_CUDA_ARCHS="80 90 100 120"
RUN python3 -m venv /opt/venv \
    && DNAGPT_FAST_CUDA=1 DNAGPT_FAST_CUDA_ARCHS="$DNAGPT_FAST_CUDA_ARCHS" /opt/venv/bin/pip install --no-cache-dir torch==2.13.0 .

# The CUDA runtime is linked statically, and torch's wheel brings its own libraries: no CUDA image is needed here.
FROM ubuntu:24.04
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 gcc libc6-dev python3-dev \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 dnagpt
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001
WORKDIR /data
ENTRYPOINT ["dnagpt-fast"]
CMD ["--help"]
