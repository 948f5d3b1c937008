# The image of `make image`: /sbin/keepalive, /sbin/keepalive-tools for `keepalive import` and `keepalive completions`, and nothing else. Its context is dist/. In your own Dockerfile:
#     COPY --from=keepalive /sbin/keepalive /sbin/keepalive
FROM scratch
COPY keepalive keepalive-tools /sbin/
ENTRYPOINT ["/sbin/keepalive"]
