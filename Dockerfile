# docker build -t gateway .        Another base: --build-arg PYTHON=…, anything with Python 3.11 or later.
ARG PYTHON=python:3.11-slim

FROM ${PYTHON} AS build
RUN command -v cc >/dev/null || { apt-get -qq update && apt-get -qq install -y --no-install-recommends gcc libc6-dev >/dev/null; }
WORKDIR /src
RUN python3 -m venv /opt/gateway
COPY config/requirements.lock config/
RUN /opt/gateway/bin/pip install --quiet --no-cache-dir --require-hashes --only-binary :all: -r config/requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY .ci/build.py .ci/
COPY gateway gateway
RUN GATEWAY_REQUIRE_NATIVE=1 /opt/gateway/bin/pip install --quiet --no-cache-dir --no-deps .

FROM ${PYTHON}
RUN useradd --uid 10001 --no-log-init --home-dir /var/lib/gateway --shell /usr/sbin/nologin gateway \
 && install -d -o gateway -g gateway -m 0700 /var/lib/gateway
COPY --from=build /opt/gateway /opt/gateway
ENV PATH=/opt/gateway/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    GATEWAY__STORE__URL=sqlite:////var/lib/gateway/gateway.db \
    GATEWAY__ADMIN__INSECURE=true
# The admin listener stays on the container's loopback. Who sets GATEWAY__ADMIN__ADDRESS to reach it over a private
# container network gets plain HTTP there: for any other network set GATEWAY__ADMIN__TLS__CERTIFICATE and …__KEY.
USER gateway
WORKDIR /var/lib/gateway
VOLUME /var/lib/gateway
EXPOSE 4200
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 CMD ["gateway", "healthcheck"]
ENTRYPOINT ["gateway"]
CMD ["serve"]
