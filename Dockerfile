# Not built or run by the authors so far. CPU by default; for an NVIDIA GPU give another index of torch:
#   docker build -t nuclei-gpu --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 .
# Use: docs/install.md
FROM python:3.12-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

RUN apt-get update && apt-get install --yes --no-install-recommends make && rm -rf /var/lib/apt/lists/*

WORKDIR /nuclei
COPY requirements.txt ./
# torch alone from its own index; the other packages, at the pinned versions, from PyPI
RUN pip install --no-cache-dir $(grep -E '^torch(vision)?==' requirements.txt) --index-url "$TORCH_INDEX" \
    && pip install --no-cache-dir --requirement requirements.txt

COPY . .
# make writes its rules here, also for a user given by `docker run --user`
RUN pip install --no-cache-dir --no-deps --editable . && chmod a+rwx /nuclei
ENV HOME=/tmp

ENTRYPOINT ["make", "PYTHON=python"]
CMD ["help"]
