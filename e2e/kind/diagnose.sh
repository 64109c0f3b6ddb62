#!/usr/bin/env bash
# diagnose.sh: what one looks at first when a step has failed. Changes nothing; asks for nothing longer than 10 s.
set -uo pipefail
# shellcheck source=e2e/kind/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

ask() {
  echo "--- $*"
  timeout 10 "$@" 2>&1 | tail -n "${LINES_OF:-40}"
}

ask docker ps --filter "label=io.x-k8s.kind.cluster=$CLUSTER" --format '{{.Names}} {{.Status}}'
ask kubectl --context "$context" get nodes -o wide
ask kubectl --context "$context" get pods --all-namespaces -o wide
ask kubectl --context "$context" get events --all-namespaces --sort-by=.lastTimestamp
ask kubectl --context "$context" -n "$NAMESPACE" get gateways,httproutes,inferencepools -o yaml
ask kubectl --context "$context" -n "$NAMESPACE" describe pods
for pod in $(timeout 10 kubectl --context "$context" -n "$NAMESPACE" get pods -o name 2>/dev/null); do
  LINES_OF=20 ask kubectl --context "$context" -n "$NAMESPACE" logs "$pod" --all-containers --tail=20
done
