#!/usr/bin/env bash
# What deploy/Dockerfile does, without Docker: a clean environment, the server in it with nothing to write to but its
# temporary folder, and one request. As root it runs as nobody, as in the image, where the interpreter lets it.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
chmod 755 "$work"
trap '[ -z "${server:-}" ] || kill "$server" 2>/dev/null; rm -rf "$work"' EXIT
git archive HEAD | (mkdir "$work/source" && tar -x -C "$work/source")
"${PYTHON:-python3}" -m venv "$work/app"
(cd "$work/source" && "$work/app/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir --constraint constraints.txt ".[${EXTRAS:-cpu,serve}]")
rm -rf "$work/source"
mkdir "$work/tmp" && chmod 777 "$work/tmp"
run=(env -i PATH="$work/app/bin:/usr/bin:/bin" HOME="$work/tmp" TMPDIR="$work/tmp" PYTHONDONTWRITEBYTECODE=1 WAVELET_TRIPLANE_TOKEN=secret)
nobody=(setpriv --reuid=65534 --regid=65534 --clear-groups)
if [ "$(id -u)" = 0 ] && "${nobody[@]}" env -i "$work/app/bin/wavelet-triplane" --help >/dev/null 2>&1; then
  run=("${nobody[@]}" "${run[@]}")
else
  echo "Not as nobody: this is not root, or the interpreter lies where nobody may not read."
fi
(cd "$work" && exec "${run[@]}" wavelet-triplane serve --host 0.0.0.0 --port "${PORT:-8765}") &
server=$!
address=http://127.0.0.1:${PORT:-8765}
for _ in $(seq 120); do curl -fs "$address/readyz" >/dev/null && break || sleep 0.5; done
curl -fsS "$address/healthz" && echo
curl -fsS --data-binary @examples/chair.png -H 'Content-Type: image/png' -H 'Authorization: Bearer secret' \
  "$address/v1/reconstructions?format=glb&seed=1" -o "$work/object.glb"
[ "$(head -c 4 "$work/object.glb")" = glTF ]
[ "$(curl -s -o /dev/null -w '%{http_code}' "$address/v1/bundle")" = 401 ]
kill -TERM "$server" && wait "$server" || true
echo "The image's steps work: $(stat -c %s "$work/object.glb" 2>/dev/null || echo some) bytes of GLB, $(du -sm "$work/app" | cut -f1) MB installed."
