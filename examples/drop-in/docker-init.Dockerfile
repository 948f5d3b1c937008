# An image that has docker-init as its entry point.
ARG KEEPALIVE=keepalive
ARG BASE=debian:bookworm-slim
FROM ${KEEPALIVE} AS keepalive

# The image as it is.
FROM ${BASE} AS before
RUN command -v docker-init || { \
        apt-get update && apt-get install --yes --no-install-recommends tini && \
        ln -s tini-static /usr/bin/docker-init; \
    }
COPY app.sh /usr/local/bin/app
ENTRYPOINT ["docker-init", "--"]
CMD ["app"]

# The same with keepalive in place of docker-init.
FROM before
COPY --from=keepalive /sbin/keepalive /sbin/keepalive
RUN ln -sf /sbin/keepalive "$(command -v docker-init)"
