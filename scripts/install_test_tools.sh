#!/usr/bin/env bash
# Installs the real programs the tests drive: Opencode and a mock provider from npm, and with
# Debian's packages a keyring service, D-Bus, tmux, nginx, git, zsh and fish where they are missing.
set -euo pipefail

tools=${1:?usage: install_test_tools.sh FOLDER}
opencode_version=1.18.33
aimock_version=1.43.0

mkdir -p "$tools"
# npm wants to be told from 11.19 on that Opencode's own installation script may run.
echo '{"private": true, "allowScripts": {"opencode-ai": true}}' > "$tools/package.json"
npm install --prefix "$tools" --no-audit --no-fund --no-save --loglevel=error \
  "opencode-ai@$opencode_version" "@copilotkit/aimock@$aimock_version"

missing=()
command -v gnome-keyring-daemon >/dev/null || missing+=(gnome-keyring)
command -v dbus-run-session >/dev/null || missing+=(dbus)
command -v tmux >/dev/null || missing+=(tmux)
command -v nginx >/dev/null || missing+=(nginx-light)
command -v git >/dev/null || missing+=(git)
command -v zsh >/dev/null || missing+=(zsh)
command -v fish >/dev/null || missing+=(fish)
if [ ${#missing[@]} -gt 0 ]; then
  "$(dirname "$0")/install_packages.sh" "${missing[@]}"
fi
