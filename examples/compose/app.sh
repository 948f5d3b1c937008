#!/bin/sh
# Stands for a program that runs until it is asked to stop.
me=${NAME:-$KEEPALIVE_SERVICE.$KEEPALIVE_INSTANCE}
trap 'echo "$me stops"; exit 0' TERM
echo "$me up"
while :; do
    # A shell would tell stderr of a sleep that was killed.
    { sleep 1000 & wait $!; } 2>/dev/null
done
