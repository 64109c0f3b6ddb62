#!/usr/bin/env bash
# conformance.sh [TEST_NAME]: the conformance suite of the Gateway API Inference Extension, with picker's image in place of
# the reference endpoint picker. Needs go and git, and the cluster that up.sh made.
set -euo pipefail
# shellcheck source=e2e/kind/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need go "the suite is written in Go"
need git "the suite is fetched by its tag"
upstream=$work/gateway-api-inference-extension-$INFERENCE_EXTENSION_VERSION
base=$upstream/conformance/resources/base.yaml
report=$work/conformance-report.yaml

fetch() {
  [ -d "$upstream/.git" ] || git clone --quiet --depth 1 --branch "$INFERENCE_EXTENSION_VERSION" \
    https://github.com/kubernetes-sigs/gateway-api-inference-extension "$upstream"
  git -C "$upstream" checkout --quiet -- conformance
}

# The suite embeds this file. The image is in the nodes, in no registry: it must not be pulled.
put_picker_in() {
  local theirs='image: \S*/gateway-api-inference-extension/\S+' before after
  before=$(grep -cE "$theirs" "$base" || true)
  sed -i -E "s#$theirs#image: $IMAGE#; s/imagePullPolicy: Always/imagePullPolicy: IfNotPresent/" "$base"
  after=$(grep -cF "image: $IMAGE" "$base" || true)
  if [ "$before" -eq 0 ] || [ "$after" -ne "$before" ]; then
    echo "$base names $before endpoint pickers, $after have become $IMAGE: it is another file than this script knows" >&2
    return 1
  fi
}

# The suite waits for gateways' addresses: some load balancer must give them.
give_addresses() {
  local subnet prefix
  k apply -f "https://raw.githubusercontent.com/metallb/metallb/$METALLB_VERSION/config/manifests/metallb-native.yaml"
  k -n metallb-system wait --for=condition=Available deployment/controller --timeout=120s
  k -n metallb-system rollout status daemonset/speaker --timeout=120s
  subnet=$(docker network inspect kind --format '{{range .IPAM.Config}}{{.Subnet}} {{end}}' | tr ' ' '\n' | grep -m1 '\.')
  prefix=$(cut -d. -f1-2 <<<"$subnet")
  sed "s/PREFIX/$prefix/g" "$here/conformance-addresses.yaml" | k apply -f -
}

# Istio asks the pickers in plain text unless it is told of their self-signed certificates.
trust_pickers() {
  k create namespace inference-conformance-app-backend --dry-run=client -o yaml | k apply -f -
  k apply -f "$here/conformance-tls.yaml"
}

run_suite() {
  local only=()
  [ $# -eq 0 ] || only=(-run-test "$1")
  local folder=$upstream package=./conformance
  if [ -f "$upstream/conformance/go.mod" ]; then folder=$upstream/conformance package=.; fi
  kind get kubeconfig --name "$CLUSTER" >"$work/kubeconfig"
  cd "$folder"
  KUBECONFIG=$work/kubeconfig go test -v -timeout 90m "$package" -args -gateway-class istio -debug \
    -report-output "$report" "${only[@]}"
}

step 300 "fetch the suite $INFERENCE_EXTENSION_VERSION" fetch
step 10 "put $IMAGE into its manifests" put_picker_in
step 300 "give gateways addresses" give_addresses
step 60 "let Istio trust the pickers" trust_pickers
step 5400 "run the suite" run_suite "$@"
echo "report: $report"
