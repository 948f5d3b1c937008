#!/bin/sh
# Stands for the program of an image: it leaves an orphan, and ends in its own way when it is asked to.
trap 'echo "asked to end"; exit 3' TERM QUIT
trap 'echo "received SIGUSR1"' USR1
(true &)
echo "ready"
while :; do
    # A shell would tell stderr of a sleep that was killed.
    { sleep 1000 & wait $!; } 2>/dev/null
done
