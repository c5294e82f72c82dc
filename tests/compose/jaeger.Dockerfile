# Jaeger from a program that was built on this host, in place of the image that can't be pulled.
ARG BASE_IMAGE=debian:bookworm-slim
FROM ${BASE_IMAGE}
COPY jaeger /usr/local/bin/jaeger
USER 10001
ENTRYPOINT ["jaeger"]
