package faults

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"dreadlock/proto/prototest/netns"
)

// weather is what happens to the packets on a wire, in both directions. The zero value is a good wire.
type weather struct {
	cut       bool          // nothing arrives, and nobody is told
	loss      float64       // part of the packets that do not arrive
	duplicate float64       // part that arrives twice
	reorder   float64       // part that is overtaken by those within reorderBy
	delay     time.Duration // of every packet
	jitter    time.Duration // at most that much more, which reorders as well
}

// reorderBy is how long a packet is held back to be overtaken.
const reorderBy = 3 * time.Millisecond

// wire joins two hosts. Both have an interface on it, a TUN device; this program carries the packets from one to the other.
type wire struct {
	ends    [2]*os.File
	weather atomic.Pointer[weather]
}

// tunDevice is where TUN devices are made.
const tunDevice = "/dev/net/tun"

// newWire joins hosts. Each gets the address at its end; both addresses are IPv4.
func newWire(name string, hosts [2]*netns.Host, addresses [2]string) (*wire, error) {
	w := &wire{}
	w.set(weather{})
	for i, h := range hosts {
		end, err := newTUN(h, name)
		if err == nil {
			w.ends[i] = end
			err = h.IP("addr", "add", addresses[i], "peer", addresses[1-i], "dev", name)
		}
		if err == nil {
			err = h.IP("link", "set", name, "up")
		}
		if err != nil {
			return nil, errors.Join(err, w.close())
		}
	}
	go w.carry(w.ends[0], w.ends[1])
	go w.carry(w.ends[1], w.ends[0])
	return w, nil
}

// newTUN makes a TUN device on a host, which is there until the file is closed.
func newTUN(h *netns.Host, name string) (*os.File, error) {
	var file *os.File
	err := h.Do(func() error {
		fd, err := unix.Open(tunDevice, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("%w: %s: %w", errSkip, tunDevice, err)
		}
		request, err := unix.NewIfreq(name)
		if err == nil {
			request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
		}
		if err != nil {
			_ = unix.Close(fd)
			return fmt.Errorf("%w: make a TUN device: %w", errSkip, err)
		}
		file = os.NewFile(uintptr(fd), tunDevice)
		return nil
	})
	return file, err
}

// set changes the weather.
func (w *wire) set(now weather) { w.weather.Store(&now) }

// carry brings packets from one end to the other until the wire is closed.
func (w *wire) carry(from, to *os.File) {
	const largest = 1 << 16
	packet := make([]byte, largest)
	for {
		n, err := from.Read(packet)
		if err != nil {
			return
		}
		now := w.weather.Load()
		if now.cut || rand.Float64() < now.loss {
			continue
		}
		w.deliver(now, packet[:n], to)
		if rand.Float64() < now.duplicate {
			w.deliver(now, packet[:n], to)
		}
	}
}

// deliver writes a packet, now or later. One that arrives after the wire was cut is lost.
func (w *wire) deliver(now *weather, packet []byte, to *os.File) {
	late := now.delay
	if now.jitter > 0 {
		late += rand.N(now.jitter)
	}
	if rand.Float64() < now.reorder {
		late += reorderBy
	}
	if late == 0 {
		_, _ = to.Write(packet) // a packet that cannot be written is a lost one
		return
	}
	kept := append([]byte(nil), packet...)
	time.AfterFunc(late, func() {
		if !w.weather.Load().cut {
			_, _ = to.Write(kept)
		}
	})
}

// close removes the wire with its interfaces.
func (w *wire) close() error {
	var all []error
	for _, end := range w.ends {
		if end != nil {
			all = append(all, end.Close())
		}
	}
	return errors.Join(all...)
}
