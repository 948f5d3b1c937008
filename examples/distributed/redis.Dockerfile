# Redis. How to build and run it: README.md.
ARG KEEPALIVE=keepalive
ARG BASE=redis:7-bookworm
FROM ${KEEPALIVE} AS keepalive

FROM ${BASE}
COPY --from=keepalive /sbin/keepalive /sbin/keepalive
COPY redis.toml /srv/keepalive.toml
VOLUME /data
HEALTHCHECK --interval=1s --timeout=2s --start-period=300s --retries=30 CMD ["/sbin/keepalive", "health", "--ready"]
ENTRYPOINT ["/sbin/keepalive", "-c", "/srv/keepalive.toml"]
CMD []
