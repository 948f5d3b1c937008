#!/bin/sh
# Posts each event to URL, one request at a time. Usage: keepalive events -f --json | webhook.sh URL
set -u
url=$1
while IFS= read -r event; do
    printf '%s' "$event" |
        curl --silent --show-error --fail --max-time 10 --retry 3 --retry-connrefused \
            --header 'Content-Type: application/json' --data-binary @- --output /dev/null "$url" ||
        echo "webhook: not delivered: $event" >&2
done
