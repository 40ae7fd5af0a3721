#!/bin/sh
# After a removal systemd forgets the units.
#
# dpkg calls this with "remove", "purge" or, in an upgrade, "upgrade"; rpm with the number of versions that stay.
set -e
[ -d /run/systemd/system ] || exit 0
case "$1" in
remove | purge | 0) systemctl daemon-reload ;;
esac
