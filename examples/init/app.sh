#!/bin/sh
# Stands for a program that knows nothing of being PID 1: it leaves orphans, and has no handler for SIGTERM.
for _ in 1 2 3; do
    (sleep 1 &)
done
echo "ready"
exec sleep 1000000
