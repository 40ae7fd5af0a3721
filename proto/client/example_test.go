package client_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"

	"dreadlock/proto/client"
	"dreadlock/server"
)

// serve runs a daemon for an example, which otherwise runs for itself on port 6001.
func serve() (address string, stop func()) {
	ready := make(chan string)
	ended := make(chan error)
	ctx, cancel := context.WithCancel(context.Background())
	cfg := server.DefaultConfig()
	cfg.Listen = []string{"127.0.0.1:0"}
	cfg.Ready = func(address string) { ready <- address }
	srv, err := server.New(cfg)
	if err != nil {
		panic(err)
	}
	go func() { ended <- srv.Run(ctx) }()
	select {
	case address = <-ready:
	case err := <-ended:
		panic(err)
	}
	return address, func() {
		cancel()
		<-ended
	}
}

func Example() {
	address, stop := serve()
	defer stop()
	locks := client.New(address, client.Options{}) // one for the whole program
	defer locks.Close()

	ctx := context.Background()
	l, err := locks.Lock(ctx, "backup", 5*time.Second)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("holding", l.Key())
	if err := l.Unlock(ctx); err != nil {
		fmt.Println(err)
	}
	// Output: holding backup
}

func ExampleClient_TryLock() {
	address, stop := serve()
	defer stop()
	locks := client.New(address, client.Options{})
	defer locks.Close()

	ctx := context.Background()
	for range 2 {
		_, err := locks.TryLock(ctx, "nightly") // is held until the end of the program
		var refusal *client.ServerError
		switch {
		case err == nil:
			fmt.Println("it is ours")
		case errors.Is(err, client.ErrTimeout):
			fmt.Println("somebody else is at it")
		case errors.As(err, &refusal):
			fmt.Println("the server says:", refusal.Text)
		default:
			fmt.Println("no server:", err)
		}
	}
	// Output:
	// it is ours
	// somebody else is at it
}

// The work is done under the context of the lock, and ends when the lock is lost: here the daemon stops meanwhile.
func ExampleLock_Context() {
	address, stop := serve()
	locks := client.New(address, client.Options{})
	defer locks.Close()

	ctx := context.Background()
	l, err := locks.Lock(ctx, "report", time.Minute)
	if err != nil {
		fmt.Println(err)
		return
	}
	// ctx may have ended when it is time to unlock, so give the unlock a little time of its own.
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		err := l.Unlock(ctx)
		fmt.Println("unlocked after it was lost:", errors.Is(err, client.ErrConnectionLost))
	}()

	work := func(ctx context.Context) error { // calls that heed ctx: requests, queries, commands
		stop()
		<-ctx.Done()
		return context.Cause(ctx)
	}
	err = work(l.Context())
	fmt.Println("stopped since the lock was lost:", errors.Is(err, client.ErrConnectionLost))
	// Output:
	// stopped since the lock was lost: true
	// unlocked after it was lost: true
}

// A daemon that speaks TLS and wants a certificate of its clients.
func ExampleNew_tls() {
	authority, err := os.ReadFile("/etc/dreadlock/ca.pem")
	if err != nil {
		fmt.Println(err)
		return
	}
	trusted := x509.NewCertPool()
	if !trusted.AppendCertsFromPEM(authority) {
		fmt.Println("no certificate in ca.pem")
		return
	}
	me, err := tls.LoadX509KeyPair("/etc/dreadlock/client.pem", "/etc/dreadlock/client.key")
	if err != nil {
		fmt.Println(err)
		return
	}
	locks := client.New("tls://locks.example:6002", client.Options{
		TLS: &tls.Config{RootCAs: trusted, Certificates: []tls.Certificate{me}},
	})
	defer locks.Close()
}
