# A server for a detector. PyTorch's CPU build by default; --build-arg TORCH=cuda takes the CUDA build, which brings CUDA's
# libraries itself: the host needs NVIDIA's driver and its container toolkit only.
#
#   docker build -t darknet-py .
#   docker build -t darknet-py:cuda --build-arg TORCH=cuda .
#   docker run --rm -p 127.0.0.1:8080:8080 -v "$PWD:/work" darknet-py serve yolov4-tiny.pt --host 0.0.0.0
#   docker run --rm --gpus all -v "$PWD:/work" darknet-py:cuda train yolov4-tiny.cfg --data photos --classes 3
ARG TORCH=cpu

FROM python:3.11-slim-bookworm AS base
# What OpenCV's wheel links against, and fonts for names on images.
RUN apt-get update \
 && apt-get install --no-install-recommends --yes libgl1 libglib2.0-0 fonts-dejavu-core \
 && rm -rf /var/lib/apt/lists/*
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1
COPY constraints.txt /tmp/constraints.txt

FROM base AS torch-cpu
RUN pip install --constraint /tmp/constraints.txt --index-url https://download.pytorch.org/whl/cpu torch

FROM base AS torch-cuda
RUN pip install --constraint /tmp/constraints.txt torch

FROM torch-${TORCH}
COPY . /tmp/source
RUN pip install --constraint /tmp/constraints.txt '/tmp/source[serve,onnx]' && rm -rf /tmp/source
RUN useradd --create-home user && mkdir /work && chown user /work
USER user
WORKDIR /work
EXPOSE 8080
# SIGTERM of `docker stop`: a server answers what waits, a training saves.
ENTRYPOINT ["darknet-py"]
CMD ["--help"]
