#!/bin/sh
# The oneshot: writes the page that the web servers serve.
set -eu
mkdir -p "$DATA"
echo "Hello from keepalive, prepared at $(date '+%H:%M:%S')." > "$DATA/page.txt"
echo "prepare: wrote $DATA/page.txt"
