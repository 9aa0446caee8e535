# Server or site of a federation; docs/deployment.md says how each is run.
#   docker build -t polyhead .
#   docker run --rm polyhead --help
FROM python:3.11-slim

# Python, too, is the one that the tests passed with. PyTorch comes with CUDA, several gigabytes of it; a server, or a site without
# a GPU, builds with `--build-arg TORCH_INDEX=` and the address of the CPU builds that PyTorch's installation page names.
ARG TORCH_INDEX=
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

WORKDIR /opt/polyhead
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
# The second extra is for studies with noise.
RUN pip install --constraint constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch \
    && pip install --constraint constraints.txt '.[nvflare,privacy]'

# Kits are readable by their owner alone: run with `--user` if the owner of the mounted kit is not 10001. A user whom
# this image does not know has neither name nor home, without which MONAI cannot be imported: so both are given.
RUN useradd --uid 10001 --no-create-home polyhead
ENV USER=polyhead \
    HOME=/tmp
USER 10001
WORKDIR /data

# SIGTERM, which `docker stop` sends, lets server and sites end in order; it takes up to half a minute, so give it
# `docker stop -t 60`.
STOPSIGNAL SIGTERM
ENTRYPOINT ["polyhead"]
CMD ["--help"]
