# python3 lock.py HOST PORT KEY WAIT WORK: waits for the key for WAIT milliseconds, works under it for WORK seconds
import contextlib, os, select, signal, socket, sys, threading, time

def stop(status, text):
    print(text, file=sys.stderr)
    sys.exit(status)  # an exception: the work can clean up

def watch(sock, answers, key, fence):
    answer = fence
    with contextlib.suppress(OSError):
        while answer == fence:  # else the key is given back or lost
            if not select.select([sock], [], [], sock.gettimeout())[0]:
                sock.sendall(f"fence {key}\r\n".encode())  # a heartbeat
            answer = answers.readline()
    if answer != b"u unlocked\r\n":
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)  # stops the work wherever it is

@contextlib.contextmanager
def locked(host, port, key, wait):
    signal.signal(signal.SIGUSR1, lambda *_: stop(76, f"lost {key}"))
    with socket.create_connection((host, port), 10) as sock, sock.makefile("rb", buffering=0) as answers:
        sock.settimeout(wait / 1000 + 10)
        sock.sendall(f"name lock.py:{os.getpid()}\r\nlock {key} {wait}\r\nfence {key}\r\n".encode())
        named, reply, fence = [answers.readline() for _ in range(3)]
        if not fence.startswith(b"f "):  # the token, which only the holder gets
            stop(75, f"{key} is not locked: {reply.decode().strip()}")
        sock.settimeout(int(named.split()[2]) / 4000)  # a quarter of the time after which a silent client loses the key
        watcher = threading.Thread(target=watch, args=(sock, answers, key, fence))
        watcher.start()
        try:
            yield int(fence[2:])
        finally:
            with contextlib.suppress(OSError):
                sock.sendall(f"unlock {key}\r\n".encode())
            watcher.join()

with locked(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])) as token:
    print(f"locked {sys.argv[3]} with token {token}", flush=True)
    time.sleep(float(sys.argv[5]))  # the work; it sends the token with all that it writes
print(f"unlocked {sys.argv[3]}")
