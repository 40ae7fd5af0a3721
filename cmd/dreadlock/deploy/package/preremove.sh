#!/bin/sh
# Before a removal the daemon is stopped, and is not to start again. In an upgrade it goes on.
#
# dpkg calls this with "remove" or "upgrade", rpm with the number of versions that stay.
set -e
case "$1" in
remove | 0) ;;
*) exit 0 ;;
esac
command -v systemctl >/dev/null || exit 0
now=
[ ! -d /run/systemd/system ] || now=--now
systemctl --no-reload disable $now dreadlock.socket dreadlock.service || true
