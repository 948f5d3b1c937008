# An image that has tini as its entry point.
ARG KEEPALIVE=keepalive
ARG BASE=debian:bookworm-slim
FROM ${KEEPALIVE} AS keepalive

# The image as it is.
FROM ${BASE} AS before
RUN command -v tini || { apt-get update && apt-get install --yes --no-install-recommends tini; }
COPY app.sh /usr/local/bin/app
ENTRYPOINT ["tini", "-g", "--"]
CMD ["app"]

# The same with keepalive in place of tini.
FROM before
COPY --from=keepalive /sbin/keepalive /sbin/keepalive
RUN ln -sf /sbin/keepalive "$(command -v tini)"
