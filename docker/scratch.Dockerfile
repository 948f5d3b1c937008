# The image of `make image`: /sbin/keepalive and nothing else. Its context is dist/. In your own Dockerfile:
#     COPY --from=keepalive /sbin/keepalive /sbin/keepalive
FROM scratch
COPY keepalive /sbin/keepalive
ENTRYPOINT ["/sbin/keepalive"]
