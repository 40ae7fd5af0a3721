#!/usr/bin/env bash
# bash lock.bash HOST PORT KEY WAIT WORK: waits for the key for WAIT milliseconds, works under it for WORK seconds
host=$1 port=$2 key=$3 wait=$4 seconds=$5

work() { # sends the token, $1, with all that it writes
	sleep "$seconds"
}
send() { printf '%s\r\n' "$@" >&3; }
answer() { # fails if none comes in time, or the connection has ended
	read -r -t "$limit" answer <&3 && answer=${answer%$'\r'}
}
stop() {
	echo "$2" >&2
	exit "$1"
}

exec 3<>"/dev/tcp/$host/$port" || exit
trap : PIPE # the next read notices the end
limit=$((wait / 1000 + 10))
send "name lock.bash:$$" "lock $key $wait" "fence $key"
answer && named=$answer && answer && reply=$answer && answer
[[ $answer == "f "* ]] || stop 75 "$key is not locked: $reply" # only the holder gets a token
fence=$answer
echo "locked $key with token ${fence#f }"
read -r _ _ silence _ <<<"$named" # milliseconds after which a silent client loses the key
printf -v limit '%d.%03d' $((silence / 4000)) $((silence / 4 % 1000)) # a quarter of them, in seconds

set -m # makes the work a process group, which is ended with all that it has started
{ work "${fence#f }" 3>&-; status=$?; send "unlock $key"; exit $status; } &
trap '{ kill -- -$!; while kill -0 -- -$!; do sleep 0.1; done; } 2>/dev/null' EXIT # until nothing of it is left
while answer || { send "fence $key"; answer; } && [[ $answer == "$fence" ]]; do :; done # with heartbeats
[[ $answer == "u unlocked" ]] || stop 76 "lost $key"
echo "unlocked $key"
trap - EXIT
wait $!
