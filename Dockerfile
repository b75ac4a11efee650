# One image for all parts of a town. The first stage makes the wheel and the environment it runs in; nothing of
# pip, its settings and its cache reaches the second.
FROM python:3.13-slim AS build

# Taken from the environment of `docker compose build`; all are optional.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_TRUSTED_HOST

WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY gastown_mail gastown_mail
RUN --mount=type=secret,id=pip-certificate --mount=type=cache,target=/root/.cache/pip \
    if [ -s /run/secrets/pip-certificate ]; then export PIP_CERT=/run/secrets/pip-certificate; fi \
 && export PIP_CONSTRAINT=/src/constraints.txt PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 \
 && python -m pip wheel --quiet --no-deps --wheel-dir /wheels . \
 && python -m venv --without-pip /opt/venv \
 && python -m pip --python /opt/venv/bin/python install --quiet /wheels/*.whl


FROM python:3.13-slim

RUN apt-get update -qq \
 && apt-get install -qq -y --no-install-recommends tmux procps >/dev/null \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* \
 && useradd --uid 1000 --user-group --create-home gastown \
 && install -d -o gastown -g gastown -m 0700 /run/tmux \
 && install -d -o gastown -g gastown /town

COPY --from=build /opt/venv /opt/venv
COPY worker.py scheduler.py /opt/gastown/
COPY docker/setup.py docker/start.py /opt/gastown/
COPY docker/sample /opt/gastown/sample
COPY docker/bin /opt/gastown/bin
RUN for name in gastown-mail rq scheduler worker; do ln -s ../start.py /opt/gastown/bin/$name; done

# HOME too: a process that gives up root keeps the environment it was started with.
ENV PATH=/opt/gastown/bin:/opt/venv/bin:$PATH \
    HOME=/home/gastown \
    LANG=C.UTF-8 \
    PYTHONUNBUFFERED=1 \
    GASTOWN_TOWN=/town
USER gastown
WORKDIR /town
CMD ["gastown-mail", "--help"]
