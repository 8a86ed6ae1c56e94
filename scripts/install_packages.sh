#!/usr/bin/env bash
# Installs Debian packages; elsewhere says what is missing.
set -euo pipefail

if ! command -v apt-get >/dev/null; then
  echo "please install: $*" >&2
  exit 1
fi
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
$sudo apt-get update -qq
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
