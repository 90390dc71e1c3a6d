# The command fsis in a container.
#   docker build --tag fsis .                                                    for CPUs
#   docker build --tag fsis:cuda --build-arg EXTRAS=slides,vendor,cuda .         for NVIDIA GPUs; run with --gpus all
#   docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD:/data" fsis fsis segment image1.tif ... --output out
# The extra cuda brings CUDA with JAX's wheels, so that one base serves both; the host needs its driver alone.
ARG BASE=python:3.13-slim-bookworm

FROM ${BASE} AS build
ARG EXTRAS=slides,vendor
COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE NOTICE CITATION.cff CHANGELOG.md CONTRIBUTING.md /src/
COPY fsis_jax /src/fsis_jax
COPY kernels /src/kernels
RUN python -m venv /opt/fsis
RUN /opt/fsis/bin/python -m pip install --no-cache-dir --disable-pip-version-check "/src[${EXTRAS}]"

FROM ${BASE}
# ps, by which Nextflow measures its tasks.
RUN apt-get update && apt-get install --yes --no-install-recommends procps && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/fsis /opt/fsis
ENV PATH=/opt/fsis/bin:$PATH
# Any user may run it, who may have no home; what is compiled is kept as long as the container.
ENV HOME=/tmp
RUN fsis --version
WORKDIR /data
CMD ["fsis", "--help"]
