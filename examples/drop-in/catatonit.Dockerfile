# An image that has catatonit as its entry point.
ARG KEEPALIVE=keepalive
ARG BASE=debian:bookworm-slim
FROM ${KEEPALIVE} AS keepalive

# The image as it is.
FROM ${BASE} AS before
RUN command -v catatonit || { apt-get update && apt-get install --yes --no-install-recommends catatonit; }
COPY app.sh /usr/local/bin/app
ENTRYPOINT ["catatonit", "-g", "--"]
CMD ["app"]

# The same with keepalive in place of catatonit.
FROM before
COPY --from=keepalive /sbin/keepalive /sbin/keepalive
RUN ln -sf /sbin/keepalive "$(command -v catatonit)"
