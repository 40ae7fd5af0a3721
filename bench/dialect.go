package bench

import (
	"fmt"
	"strconv"
	"time"

	"dreadlock/proto"
)

// Dialect is how a server is asked for a lock and what it answers.
type Dialect struct {
	Name string
	// Queues reports whether a request for a key that is held waits for it. Servers that do not can do no workload that
	// needs it.
	Queues bool

	lock   func(key string, timeout time.Duration) exchange
	unlock func(key string) exchange
}

// exchange is a request and the replies it may get, whole and as bytes. It is shared by connections and never changes.
type exchange struct {
	request []byte
	accept  [][]byte // none is the beginning of another
}

// What came of a lock: indexes into exchange.accept.
const (
	granted = iota
	refused // it is held, or the time ran out
)

// The outcomes of unlock in Mixed, in exchange.accept behind the first.
const (
	notLocked = iota + 1
	notOwner
)

// The dialects, by the scheme of a target's URL.
var dialects = map[string]*Dialect{
	"dreadlock": {Name: "dreadlock", Queues: true, lock: dreadlockLock, unlock: dreadlockUnlock},
	"redis":     {Name: "redis", lock: redisLock, unlock: redisUnlock},
	"memcached": {Name: "memcached", lock: memcachedLock, unlock: memcachedUnlock},
	"echo":      {Name: "echo", lock: echoLock, unlock: echoUnlock},
}

func dreadlockLock(key string, timeout time.Duration) exchange {
	return newExchange(proto.AppendLock(nil, key, timeout), proto.Locked.Line(), proto.TimedOut.Line())
}

func dreadlockUnlock(key string) exchange {
	return newExchange(proto.AppendUnlock(nil, key), proto.Unlocked.Line(), proto.NotLocked.Line(), proto.NotOwner.Line())
}

func redisLock(key string, timeout time.Duration) exchange {
	millis := strconv.FormatInt(max(timeout.Milliseconds(), 1), 10)
	return newExchange(resp("SET", key, "1", "NX", "PX", millis), "+OK\r\n", "$-1\r\n")
}

func redisUnlock(key string) exchange {
	return newExchange(resp("DEL", key), ":1\r\n", ":0\r\n")
}

// resp returns a command in the protocol that redis clients speak.
func resp(words ...string) []byte {
	b := fmt.Appendf(nil, "*%d\r\n", len(words))
	for _, w := range words {
		b = fmt.Appendf(b, "$%d\r\n%s\r\n", len(w), w)
	}
	return b
}

func memcachedLock(key string, timeout time.Duration) exchange {
	seconds := max((timeout+time.Second-1)/time.Second, 1)
	return newExchange(fmt.Appendf(nil, "add %s 0 %d 1\r\n1\r\n", key, seconds), "STORED\r\n", "NOT_STORED\r\n")
}

func memcachedUnlock(key string) exchange {
	return newExchange(fmt.Appendf(nil, "delete %s\r\n", key), "DELETED\r\n", "NOT_FOUND\r\n")
}

// An echo server is sent what our daemon is sent.
func echoLock(key string, timeout time.Duration) exchange {
	b := proto.AppendLock(nil, key, timeout)
	return newExchange(b, string(b))
}

func echoUnlock(key string) exchange {
	b := proto.AppendUnlock(nil, key)
	return newExchange(b, string(b))
}

func newExchange(request []byte, accept ...string) exchange {
	e := exchange{request: request}
	for _, a := range accept {
		e.accept = append(e.accept, []byte(a))
	}
	return e
}

// only returns the exchange with one reply accepted.
func (e exchange) only(outcome int) exchange {
	return exchange{request: e.request, accept: e.accept[outcome : outcome+1]}
}

// join returns several exchanges as one, with the first reply of each accepted.
func join(parts ...exchange) exchange {
	var request, reply []byte
	for _, e := range parts {
		request = append(request, e.request...)
		reply = append(reply, e.accept[0]...)
	}
	return exchange{request: request, accept: [][]byte{reply}}
}
