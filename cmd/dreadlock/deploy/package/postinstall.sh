#!/bin/sh
# After an installation nothing is started: "systemctl enable --now dreadlock" does that. After an upgrade the running daemon is
# reloaded: it hands its locks and connections to the new program. A restart would lose them.
#
# dpkg calls this with "configure" and, in an upgrade, the version before; rpm with the number of versions, which is 2 in an upgrade.
set -e
[ -d /run/systemd/system ] || exit 0
systemctl daemon-reload
case "$1 $2" in
"configure "?* | "2 ")
	systemctl try-reload-or-restart dreadlock.service ||
		echo "dreadlock: the running daemon was not replaced: journalctl -u dreadlock says why" >&2
	;;
esac
