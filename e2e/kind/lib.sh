# shellcheck shell=bash
# Steps with a time-out and, when one fails, with what the cluster looks like. Sourced by the scripts beside.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
# shellcheck source=e2e/kind/versions.env
source "$here/versions.env"
context=kind-$CLUSTER
work=$root/.cache/kind
mkdir -p "$work"
tools=$root/.cache/kube-tools
case :$PATH: in
  *":$tools:"*) ;;
  *) export PATH=$tools:$PATH ;;
esac

k() { kubectl --context "$context" "$@"; }
h() { helm --kube-context "$context" "$@"; }

need() { # need COMMAND WHAT_FOR
  command -v "$1" >/dev/null || { echo "$1 is missing: $2" >&2; exit 69; }
}

# step SECONDS "WHAT" COMMAND...: runs a function or command; past its time, or when it fails, says why and ends the script.
step() {
  local seconds=$1 what=$2 status=0
  shift 2
  echo "== $what (at most $seconds s)"
  SECONDS=0
  "$@" &
  local pid=$!
  while kill -0 "$pid" 2>/dev/null; do
    if [ "$SECONDS" -ge "$seconds" ]; then
      kill_tree "$pid"
      wait "$pid" 2>/dev/null || true
      failed "$what" "not done after $seconds s"
    fi
    sleep 0.2
  done
  wait "$pid" || status=$?
  [ "$status" -eq 0 ] || failed "$what" "exit status $status"
  echo "   done after $SECONDS s"
}

kill_tree() {
  local child
  for child in $(pgrep -P "$1" || true); do kill_tree "$child"; done
  kill "$1" 2>/dev/null || true
}

failed() { # failed WHAT WHY
  echo "FAILED: $1: $2" >&2
  bash "$here/diagnose.sh" >&2 || true
  exit 1
}
