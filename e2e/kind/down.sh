#!/usr/bin/env bash
# down.sh: delete the cluster that up.sh made.
set -euo pipefail
# shellcheck source=e2e/kind/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need kind "https://kind.sigs.k8s.io"
step 120 "delete the cluster $CLUSTER" kind delete cluster --name "$CLUSTER"
