#!/bin/sh
# Stands where an AI coding agent would: it says what it was told, and, with STEPS set, does as many steps of
# "work" before it asks for a fresh session.
echo "$1"
if [ -n "$GASTOWN_HANDOFF" ]; then
  echo "My predecessor wrote: $(cat "$GASTOWN_HANDOFF")"
fi
if [ -n "$STEPS" ]; then
  step=0
  while [ "$step" -lt "$STEPS" ]; do
    step=$((step + 1))
    echo "$(date +%T) step $step of $STEPS"
    sleep 10
  done
  gastown-mail send cycle --reason "my context is full" --handoff "$STEPS steps done at $(date +%T); go on"
fi
while read -r line; do
  echo "$(date +%T) I was told: $line"
done
