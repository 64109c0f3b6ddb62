#!/usr/bin/env bash
# suite.sh [PYTEST_OPTIONS...]: the suite of e2e/suite against the gateway of the cluster that up.sh made.
set -euo pipefail
# shellcheck source=e2e/kind/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

: "${GATEWAY_PORT:=18080}"
export GATEWAY_URL=http://127.0.0.1:$GATEWAY_PORT
export GATEWAY_WITHOUT=${GATEWAY_WITHOUT-embeddings}
[ -x "$root/.venv/bin/pytest" ] || { echo "run make .venv/.done first" >&2; exit 69; }

gateway_answers() {
  until curl --silent --fail --max-time 5 --output /dev/null "$GATEWAY_URL/v1/models"; do sleep 1; done
}

run_suite() { "$root/.venv/bin/pytest" "$root/e2e/suite" "$@"; }

k -n "$NAMESPACE" port-forward service/inference-gateway-istio "$GATEWAY_PORT:80" >"$work/port-forward.log" 2>&1 &
forward=$!
trap 'kill_tree "$forward"' EXIT
step 60 "reach the gateway at $GATEWAY_URL" gateway_answers
step 900 "run the suite" run_suite "$@"
