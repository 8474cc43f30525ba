# Not built by the authors so far; docs/install.md says what was tried. CPU by default; for an NVIDIA GPU give another
# index of torch:
#   docker build -t nuclei-gpu --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
FROM python:3.12-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends make && rm -rf /var/lib/apt/lists/*

WORKDIR /nuclei
COPY requirements.txt locks/base.txt ./
# torch with what it needs from its own index; the other packages from PyPI, each file checked by its hash. There is no
# compiler in the image, so that a package without a wheel is an error here and not half an hour later.
RUN grep -E '^torch(vision)?==' requirements.txt > torch.txt \
    && pip install --only-binary=:all: --requirement torch.txt --index-url "$TORCH_INDEX" \
    && pip install --only-binary=:all: --no-deps --require-hashes --requirement base.txt

COPY . .
# make writes its rules here, also for a user given by `docker run --user`
RUN pip install --no-deps --no-build-isolation --editable . && chmod a+rwx /nuclei
ENV HOME=/tmp

ENTRYPOINT ["make", "PYTHON=python"]
CMD ["help"]
