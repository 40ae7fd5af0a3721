//go:build ignore
// cc -pthread -o lock lock.c; ./lock HOST PORT KEY WAIT WORK: waits for the key WAIT milliseconds, works WORK seconds under it
#include <err.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char *key, named[128], reply[128], fence[128], answer[128];
static int sock, limit; // of milliseconds for an answer
static int receive(char line[128]) { // 0 if none comes in time, or the connection has ended
    for (int n = 0; n < 127 && poll(&(struct pollfd){sock, POLLIN, 0}, 1, limit) > 0 && read(sock, line + n, 1) > 0; n++)
        if (line[n] == '\r') line[n] = '\0';
        else if (line[n] == '\n') return 1;
    return 0;
}
static void *work(void *seconds) { // sends the token with all that it writes
    sleep(atoi(seconds));
    dprintf(sock, "unlock %s\r\n", key);
    return NULL;
}
int main(int argc, char **argv) {
    struct addrinfo *to, want = {.ai_socktype = SOCK_STREAM};
    if (argc != 6 || getaddrinfo(argv[1], argv[2], &want, &to)) errx(2, "want HOST PORT KEY WAIT WORK");
    while (to && connect(sock = socket(to->ai_family, SOCK_STREAM, 0), to->ai_addr, to->ai_addrlen)) to = to->ai_next;
    signal(SIGPIPE, SIG_IGN); // receive notices the end
    limit = atoi(argv[4]) + 10000;
    dprintf(sock, "name lock.c:%d\r\nlock %s %s\r\nfence %s\r\n", getpid(), argv[3], argv[4], key = argv[3]);
    if (!receive(named) || !receive(reply) || !receive(fence) || *fence != 'f') errx(75, "%s is not locked: %s", key, reply);
    limit = atoi(named + strlen("n named ")) / 4; // of the time after which a silent client loses the key
    dprintf(1, "locked %s with token %s\n", key, fence + strlen("f "));
    if (pthread_create(&(pthread_t){0}, NULL, work, argv[5])) errx(1, "no thread");
    while ((receive(answer) || (dprintf(sock, "fence %s\r\n", key) && receive(answer))) && !strcmp(answer, fence)); // heartbeats
    if (strcmp(answer, "u unlocked")) errx(76, "lost %s", key); // and ends the work
    dprintf(1, "unlocked %s\n", key);
}
