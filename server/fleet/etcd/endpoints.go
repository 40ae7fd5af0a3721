package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// callTime is how long an endpoint may take to answer.
	callTime = time.Second
	// restTime is the pause after all endpoints have failed.
	restTime = 100 * time.Millisecond
)

// endpoint is a member of etcd, or what leads to one.
type endpoint struct {
	url     string
	dial    func() (*clientv3.Client, error)
	log     zerolog.Logger
	failing atomic.Bool // the last call that counts has failed

	mu     sync.Mutex
	client *clientv3.Client // nil before the first call
}

// endpoints are those of one cluster. Safe from any goroutine.
type endpoints struct {
	all     []*endpoint
	another func(url string) *endpoint // of the same cluster
	current atomic.Int64               // the one that is asked first
}

func newEndpoints(cfg *Config) (*endpoints, error) {
	encryption, err := cfg.tls()
	if err != nil {
		return nil, err
	}
	e := &endpoints{another: func(url string) *endpoint {
		return &endpoint{url: url, log: cfg.Log, dial: func() (*clientv3.Client, error) { return dial(cfg, url, encryption) }}
	}}
	for _, url := range cfg.Endpoints {
		e.all = append(e.all, e.another(url))
	}
	return e, nil
}

// dial returns a client of one endpoint. It waits for an answer only if there is a user.
func dial(cfg *Config, url string, encryption *tls.Config) (*clientv3.Client, error) {
	options := clientv3.Config{
		Endpoints:            []string{url},
		DialTimeout:          callTime,
		DialKeepAliveTime:    10 * time.Second, // less is not possible
		DialKeepAliveTimeout: 2 * callTime,
		TLS:                  encryption,
		MaxUnaryRetries:      2, // one more, with another token; whatever else fails is tried at the next endpoint
		Logger:               zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: restTime, Multiplier: 1.6, Jitter: 0.2, MaxDelay: callTime},
			MinConnectTimeout: 2 * callTime,
		}), grpc.WithChainUnaryInterceptor(unveil)},
	}
	if cfg.User != "" {
		password, err := cfg.password()
		if err != nil {
			return nil, err
		}
		options.Username, options.Password = cfg.User, password
	}
	return clientv3.New(options)
}

// unveil has a call fail with why there is no connection, if it has waited for one in vain.
func unveil(
	ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption,
) error {
	err := invoke(ctx, method, request, reply, conn, options...)
	if s, ok := status.FromError(err); ok && s.Code() == codes.DeadlineExceeded {
		if _, why, ok := strings.Cut(s.Message(), "latest balancer error: "); ok {
			return status.Error(codes.Unavailable, why)
		}
	}
	return err
}

// get returns the client of an endpoint.
func (p *endpoint) get() (*clientv3.Client, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.client == nil {
		client, err := p.dial()
		if err != nil {
			return nil, err
		}
		p.client = client
	}
	return p.client, nil
}

// close gives up the connection.
func (p *endpoint) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.client != nil {
		_ = p.client.Close() // there is nothing more to say
		p.client = nil
	}
}

func (e *endpoints) close() {
	for _, p := range e.all {
		p.close()
	}
}

// first returns the endpoint to be asked.
func (e *endpoints) first() *endpoint { return e.all[int(e.current.Load())%len(e.all)] }

// next returns the endpoint to watch at after one: one that answers, if there is any.
func (e *endpoints) next(after int) int {
	n := len(e.all)
	for i := range n {
		if at := (after + 1 + i) % n; !e.all[at].failing.Load() {
			return at
		}
	}
	return (after + 1) % n
}

// failed says that an endpoint has not answered: the one after it is asked next.
func (e *endpoints) failed(p *endpoint, err error) {
	if now := e.current.Load(); e.all[int(now)%len(e.all)] == p {
		e.current.CompareAndSwap(now, (now+1)%int64(len(e.all)))
	}
	if !p.failing.Swap(true) {
		p.log.Warn().Str("endpoint", p.url).Str("reason", reason(err)).Msg("etcd does not answer here")
	}
}

// answered says that an endpoint has answered.
func (p *endpoint) answered() {
	if p.failing.Load() && p.failing.Swap(false) {
		p.log.Info().Str("endpoint", p.url).Msg("etcd answers here again")
	}
}

// once has one endpoint asked, within the time of a call. If it does not answer, the next call goes to the next one.
func (e *endpoints) once(ctx context.Context, call func(context.Context, *clientv3.Client) error) error {
	p := e.first()
	limited, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	client, err := p.get()
	if err == nil {
		err = call(limited, client)
	}
	switch {
	case err == nil || isAnswer(err):
		p.answered()
	case ctx.Err() == nil:
		e.failed(p, err)
	}
	return err
}

// try has the endpoints asked, one after the other, until one has answered or all have been asked.
func (e *endpoints) try(ctx context.Context, call func(context.Context, *clientv3.Client) error) (err error) {
	for range e.all {
		if err = e.once(ctx, call); err == nil || isAnswer(err) || ctx.Err() != nil {
			return err
		}
	}
	return err
}

// isAnswer reports whether an error is the answer of the cluster, so that another endpoint would give the same.
func isAnswer(err error) bool {
	for _, known := range []error{
		rpctypes.ErrLeaseNotFound, rpctypes.ErrNoSpace, rpctypes.ErrCompacted, rpctypes.ErrPermissionDenied, rpctypes.ErrAuthFailed,
		rpctypes.ErrUserEmpty, rpctypes.ErrTooManyOps, rpctypes.ErrRequestTooLarge, rpctypes.ErrDuplicateKey,
	} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}

// reason returns the text of an error for people.
func reason(err error) string {
	s, ok := status.FromError(err)
	switch {
	case errors.Is(err, context.DeadlineExceeded), ok && s.Code() == codes.DeadlineExceeded:
		return fmt.Sprintf("no answer within %s", callTime)
	case !ok:
		return err.Error()
	}
	text := s.Message()
	if _, inner, ok := strings.Cut(text, `connection error: desc = "`); ok {
		text = strings.TrimPrefix(strings.TrimSuffix(inner, `"`), "transport: ")
	}
	return text
}

// complaint is what was said of something that fails again and again. It belongs to one goroutine.
type complaint struct {
	text string
	at   time.Time
}

// isNews reports whether a reason is to be logged: it was not yet, or not for a while. Reasons that take turns are logged now and then.
func (c *complaint) isNews(text string) bool {
	const (
		sameTime  = 30 * time.Second
		otherTime = 5 * time.Second
	)
	wait := otherTime
	if text == c.text {
		wait = sameTime
	}
	if time.Since(c.at) < wait {
		return false
	}
	c.text, c.at = text, time.Now()
	return true
}

// pause waits, and reports whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
