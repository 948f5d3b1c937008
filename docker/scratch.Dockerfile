# The image of `make image`: /sbin/keepalive, /sbin/keepalive-import for `keepalive import`, and nothing else. Its context is dist/. In your own Dockerfile:
#     COPY --from=keepalive /sbin/keepalive /sbin/keepalive
FROM scratch
COPY keepalive keepalive-import /sbin/
ENTRYPOINT ["/sbin/keepalive"]
