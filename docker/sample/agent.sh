#!/bin/sh
# Stands in for an AI coding agent: prints its prompt and, with STEPS set, does that many steps of "work" before
# it asks for a new session.
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
