#!/bin/sh
# After a removal systemd forgets the units.
set -e
[ ! -d /run/systemd/system ] || systemctl daemon-reload
