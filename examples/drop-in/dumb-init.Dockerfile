# An image that has dumb-init as its entry point, with SIGTERM rewritten to SIGQUIT.
ARG KEEPALIVE=keepalive
ARG BASE=debian:bookworm-slim
FROM ${KEEPALIVE} AS keepalive

# The image as it is.
FROM ${BASE} AS before
RUN command -v dumb-init || { apt-get update && apt-get install --yes --no-install-recommends dumb-init; }
COPY app.sh /usr/local/bin/app
ENTRYPOINT ["dumb-init", "--rewrite", "15:3", "--"]
CMD ["app"]

# The same with keepalive in place of dumb-init.
FROM before
COPY --from=keepalive /sbin/keepalive /sbin/keepalive
RUN ln -sf /sbin/keepalive "$(command -v dumb-init)"
