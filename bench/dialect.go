package bench

import (
	"fmt"
	"strconv"
	"time"

	"dreadlock/proto"
)

// Dialect is the protocol of a server: how a lock is requested, and the replies.
type Dialect struct {
	Name string
	// Queues reports whether a request for a held key waits until it is free. Other servers cannot run the workloads that
	// need that.
	Queues bool

	lock   func(key string, timeout time.Duration) exchange
	unlock func(key string) exchange
}

// exchange is a request and its possible replies, complete and as bytes. It is shared by connections and never changes.
type exchange struct {
	request []byte
	accept  [][]byte // none is a prefix of another
}

// The outcomes of lock: indexes into exchange.accept.
const (
	granted = iota
	refused // it is held, or the wait timed out
)

// The failures of unlock: indexes into exchange.accept, after that of success.
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

// resp returns a command in RESP, the protocol of redis.
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

// An echo server gets the requests that our daemon gets.
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

// only returns the exchange with one accepted reply.
func (e exchange) only(outcome int) exchange {
	return exchange{request: e.request, accept: e.accept[outcome : outcome+1]}
}

// join returns several exchanges as one, which accepts the first reply of each.
func join(parts ...exchange) exchange {
	var request, reply []byte
	for _, e := range parts {
		request = append(request, e.request...)
		reply = append(reply, e.accept[0]...)
	}
	return exchange{request: request, accept: [][]byte{reply}}
}
