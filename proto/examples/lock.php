<?php
// php lock.php HOST PORT KEY WAIT WORK: waits for the key for WAIT milliseconds, works under it for WORK seconds
[, $host, $port, $key, $wait, $seconds] = $argv;

function stop(int $status, string $text): never
{
    fwrite(STDERR, "$text\n");
    exit($status);
}

$socket = stream_socket_client("tcp://$host:$port", $code, $error, 10) or stop(69, $error);
stream_set_timeout($socket, intdiv((int) $wait, 1000) + 10);
fwrite($socket, 'name lock.php:' . getmypid() . "\r\nlock $key $wait\r\nfence $key\r\n");
[$named, $reply, $fence] = [fgets($socket), fgets($socket), fgets($socket)];
if (!str_starts_with($fence, 'f ')) { // the token, which only the holder gets
    stop(75, "$key is not locked: " . trim($reply));
}
$token = substr(trim($fence), 2);
echo "locked $key with token $token\n";

$limit = (int) explode(' ', $named)[2] * 250; // microseconds: a quarter of the time after which a silent client loses it
stream_set_timeout($socket, 0, $limit);
// The work is a process, since PHP cannot watch and work at a time. It sends the token with all that it writes.
$work = proc_open(['sleep', $seconds], [3 => ['pipe', 'w']], $pipes, null, ['TOKEN' => $token] + getenv());
for ($answer = $fence; $answer === $fence; $answer = fgets($socket)) {
    $ready = ['lock' => $socket, 'work' => $pipes[3]];
    if (!stream_select($ready, $write, $except, 0, $limit)) {
        fwrite($socket, "fence $key\r\n"); // a heartbeat
    } elseif (isset($ready['work'])) { // it has ended
        fwrite($socket, "unlock $key\r\n");
    }
}
if ($answer !== "u unlocked\r\n") { // taken away, the connection has ended, or the daemon is silent
    proc_terminate($work);
    proc_close($work); // waits for its end
    stop(76, "lost $key");
}
echo "unlocked $key\n";
exit(proc_close($work));
