#!/usr/bin/env bash
# Installs what `make bench` measures beside our gateway: nginx from Debian's packages, and others'
# gateways, each in an environment of its own below FOLDER, at the versions named here. What does not install is named in FOLDER/absent.txt
# with the last words of its installer; the bench then goes on without it and says so.
# Usage: install_rivals.sh FOLDER [NAME...]
set -uo pipefail

folder=${1:?usage: install_rivals.sh FOLDER [NAME...]}
shift
names=("$@")
[ ${#names[@]} -gt 0 ] || names=(nginx ferrogw tensorzero portkey litellm)
uv=${UV:-uv}
python=${PYTHON:-python3}

mkdir -p "$folder"
touch "$folder/absent.txt"

from_pypi() { # NAME REQUIREMENT...
  local name=$1
  shift
  "$uv" venv --quiet --allow-existing --python "$python" "$folder/$name" &&
    "$uv" pip install --quiet --python "$folder/$name/bin/python" "$@"
}

# A fresh installation of Portkey breaks streaming (500, "immutable") with newer versions of these.
from_npm_portkey() {
  mkdir -p "$folder/portkey"
  cat > "$folder/portkey/package.json" <<'JSON'
{
  "private": true,
  "dependencies": {"@portkey-ai/gateway": "1.15.2"},
  "overrides": {"@hono/node-server": "1.13.8", "hono": "4.9.7"}
}
JSON
  npm install --prefix "$folder/portkey" --ignore-scripts --no-audit --no-fund --loglevel=error
}

from_debian_nginx() {
  mkdir -p "$folder/nginx"
  PATH=$PATH:/usr/sbin command -v nginx || "$(dirname "$0")/install_packages.sh" nginx-light
}

installed() {
  case $1 in
    nginx) from_debian_nginx ;;
    ferrogw) from_pypi ferrogw ferrogw==1.5.10 ;;
    tensorzero) from_pypi tensorzero tensorzero==2026.6.0 openai==3.54.0 ;;
    portkey) from_npm_portkey ;;
    litellm) from_pypi litellm 'litellm[proxy]==1.106.2' ;;
    *) echo "unknown: $1" && return 1 ;;
  esac
}

for name in "${names[@]}"; do
  [ -e "$folder/$name/installed" ] && continue
  grep -v "^$name	" "$folder/absent.txt" > "$folder/absent.new"
  mv "$folder/absent.new" "$folder/absent.txt"
  echo "installing $name" >&2
  if log=$(installed "$name" 2>&1); then
    touch "$folder/$name/installed"
  else
    reason=$(printf '%s' "$log" | grep -v '^ *$' | tail -n 1 | tr '\t' ' ')
    printf '%s\tdoes not install here: %s\n' "$name" "$reason" >> "$folder/absent.txt"
    echo "$name does not install here: $log" >&2
  fi
done
