#!/bin/sh
# Stands for a program: it leaves an orphan in a session of its own, and ends in its own way when it is asked to.
me=${NAME:-$KEEPALIVE_SERVICE.$KEEPALIVE_INSTANCE}
trap 'echo "$me stops"; exit 0' TERM
(setsid sleep 1000000 &)
echo "$me up"
while :; do
    # A shell would tell stderr of a sleep that was killed.
    { sleep 1000 & wait $!; } 2>/dev/null
done
