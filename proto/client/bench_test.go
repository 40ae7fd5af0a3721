package client

import (
	"bufio"
	"context"
	"io"
	"net"
	"strconv"
	"testing"

	"dreadlock/proto"
)

// BenchmarkTryLock locks a free key and unlocks it: two round trips. BenchmarkRoundTrips does the same without the client.
func BenchmarkTryLock(b *testing.B) {
	address, _ := startServer(b, nil)
	c := newClient(b, address, Options{})
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		l, err := c.TryLock(ctx, "key123")
		if err != nil {
			b.Fatal(err)
		}
		if err := l.Unlock(ctx); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkTryLockWithFence is the same with a token for each lock, which costs no round trip.
func BenchmarkTryLockWithFence(b *testing.B) {
	address, _ := startServer(b, nil)
	c := newClient(b, address, Options{Fence: true})
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		l, err := c.TryLock(ctx, "key123")
		if err != nil {
			b.Fatal(err)
		}
		if err := l.Unlock(ctx); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkTryLockWithCancel is the same with a context that can end.
func BenchmarkTryLockWithCancel(b *testing.B) {
	address, _ := startServer(b, nil)
	c := newClient(b, address, Options{})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	b.ReportAllocs()
	for b.Loop() {
		l, err := c.TryLock(ctx, "key123")
		if err != nil {
			b.Fatal(err)
		}
		if err := l.Unlock(ctx); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkTryLockParallel has many goroutines with one client, each with a key of its own.
func BenchmarkTryLockParallel(b *testing.B) {
	address, _ := startServer(b, nil)
	c := newClient(b, address, Options{})
	ctx := context.Background()
	keys := make(chan string, 1<<10)
	for i := range cap(keys) {
		keys <- "key" + strconv.Itoa(i)
	}
	b.SetParallelism(8)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		key := <-keys
		for pb.Next() {
			l, err := c.TryLock(ctx, key)
			if err != nil {
				b.Error(err)
				return
			}
			if err := l.Unlock(ctx); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func BenchmarkRoundTrips(b *testing.B) {
	address, _ := startServer(b, nil)
	conn, err := net.Dial("tcp", address)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	commands := []string{"lock key123 0\r\n", "unlock key123\r\n"}
	answers := []string{proto.Locked.Line(), proto.Unlocked.Line()}
	b.ReportAllocs()
	for b.Loop() {
		for i, command := range commands {
			if _, err := io.WriteString(conn, command); err != nil {
				b.Fatal(err)
			}
			if line, err := in.ReadSlice('\n'); err != nil || string(line) != answers[i] {
				b.Fatalf("%q, %v", line, err)
			}
		}
	}
}
