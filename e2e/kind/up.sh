#!/usr/bin/env bash
# up.sh [simulated|cpu|gpu]: a kind cluster with a gateway, engines and picker in it. Without a word: gpu when the host's
# docker gives containers GPUs, else cpu. Needs docker and kind; brings helm and kubectl itself.
set -euo pipefail
# shellcheck source=e2e/kind/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

host_has_gpus() {
  command -v nvidia-smi >/dev/null &&
    timeout 120 docker run --rm -v /dev/null:/var/run/nvidia-container-devices/all ubuntu:24.04 nvidia-smi -L 2>/dev/null | grep -q GPU
}

need docker "a kind cluster is made of containers"
timeout 20 docker info >/dev/null 2>&1 || { echo "docker does not answer: is its daemon running?" >&2; exit 69; }
need kind "https://kind.sigs.k8s.io"
bash "$root/e2e/tools/install.sh"

engines=${1:-}
if [ -z "$engines" ]; then
  engines=cpu
  if host_has_gpus; then engines=gpu; fi
fi
case $engines in
  simulated) manifest=simulated.yaml deployment=simulated cluster=cluster.yaml ;;
  cpu) manifest=vllm-cpu.yaml deployment=vllm cluster=cluster.yaml ;;
  gpu) manifest=vllm-nvidia.yaml deployment=vllm cluster=cluster-gpu.yaml ;;
  *) echo "usage: $0 [simulated|cpu|gpu]" >&2; exit 64 ;;
esac
if [ "$engines" = gpu ] && ! host_has_gpus; then
  echo "docker gives containers no GPU: see README.md, \"GPUs\"" >&2
  exit 69
fi
echo "engines: $engines"

create_cluster() {
  kind get clusters 2>/dev/null | grep -qx "$CLUSTER" && return
  kind create cluster --name "$CLUSTER" --image "$KIND_NODE_IMAGE" --config "$here/$cluster" --wait 180s
}

prepare_gpu_nodes() {
  local node
  for node in $(k get nodes -l nvidia.com/gpu.present=true -o name | cut -d/ -f2); do
    # The runtime inside the node is containerd's own: it needs the toolkit as the host's docker does.
    docker exec "$node" bash -ec '
      command -v nvidia-ctk >/dev/null || {
        apt-get update -qq && apt-get install -y -qq curl gpg >/dev/null
        base=https://nvidia.github.io/libnvidia-container
        key=/usr/share/keyrings/nvidia-container-toolkit.gpg
        curl -fsSL --max-time 60 $base/gpgkey | gpg --dearmor -o $key
        echo "deb [signed-by=$key] $base/stable/deb/amd64 /" >/etc/apt/sources.list.d/nvidia-container-toolkit.list
        apt-get update -qq && apt-get install -y -qq nvidia-container-toolkit >/dev/null
      }
      umount -R /proc/driver/nvidia 2>/dev/null || true
      nvidia-ctk runtime configure --runtime=containerd --set-as-default --config=/etc/containerd/config.toml
      systemctl restart containerd'
  done
  h upgrade --install nvidia-device-plugin nvidia-device-plugin --repo https://nvidia.github.io/k8s-device-plugin \
    --version "$DEVICE_PLUGIN_VERSION" --namespace nvidia --create-namespace --wait --timeout 240s
}

gpus_are_offered() {
  until k get nodes -o jsonpath='{.items[*].status.allocatable.nvidia\.com/gpu}' | grep -q '[1-9]'; do sleep 2; done
}

install_custom_resources() {
  k apply --server-side -f "https://github.com/kubernetes-sigs/gateway-api/releases/download/$GATEWAY_API_VERSION/standard-install.yaml"
  k apply --server-side -f "$root/crds/"
  k wait --for=condition=Established crd --all --timeout=60s
}

install_gateway() {
  local charts=https://istio-release.storage.googleapis.com/charts
  h upgrade --install istio-base base --repo "$charts" --version "$ISTIO_VERSION" --namespace istio-system --create-namespace
  h upgrade --install istiod istiod --repo "$charts" --version "$ISTIO_VERSION" --namespace istio-system \
    --set pilot.env.ENABLE_GATEWAY_API_INFERENCE_EXTENSION=true --wait --timeout 300s
}

build_image() { docker build --file "$root/Containerfile" --tag "$IMAGE" "$root"; }

load_image() { kind load docker-image "$IMAGE" --name "$CLUSTER"; }

start_engines() {
  k apply -f "$root/manifests/namespace.yaml"
  k apply -f "$root/manifests/engines/$manifest"
  k -n "$NAMESPACE" rollout status "deployment/$deployment" --timeout=1500s
}

install_picker() {
  h upgrade --install chat "$root/charts/picker" --namespace "$NAMESPACE" --values "$here/values.yaml" --wait --timeout 240s
}

open_gateway() {
  k -n "$NAMESPACE" apply -f "$here/gateway.yaml"
  k -n "$NAMESPACE" wait --for=condition=Programmed gateway/inference-gateway --timeout=180s
}

pool_is_accepted() {
  local path='{.status.parents[*].conditions[?(@.type=="Accepted")].status}'
  until k -n "$NAMESPACE" get inferencepool chat -o jsonpath="$path" | grep -q True; do sleep 2; done
}

step 300 "create the cluster $CLUSTER" create_cluster
if [ "$engines" = gpu ]; then
  step 600 "give the nodes their GPUs" prepare_gpu_nodes
  step 180 "wait until the nodes offer nvidia.com/gpu" gpus_are_offered
fi
step 180 "install the custom resources" install_custom_resources
step 400 "install Istio $ISTIO_VERSION" install_gateway
step 1200 "build the image $IMAGE" build_image
step 300 "bring the image into the cluster" load_image
step 1600 "start the engines ($manifest)" start_engines
step 300 "install picker by its chart" install_picker
step 240 "open the gateway" open_gateway
step 120 "wait until the gateway has accepted the pool" pool_is_accepted
echo "up. Next: $here/suite.sh"
