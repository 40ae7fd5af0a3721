package main

import (
	"os/exec"
	"strings"
	"testing"

	"dreadlock/proto/prototest"
)

// The protocol as a user of netcat sees it.
func TestSession(t *testing.T) {
	d := start(t, "--loops", "4")
	a, b, c := d.dial(), d.dial(), d.dial()

	a.Do("lock printer 1000", "l locked")
	a.Do("lock printer 1000", "e already locked")
	b.Do("lock printer 0", "t timeout")
	b.Do("lock printer 20", "t timeout")
	b.Do("unlock printer", "e not owner")
	b.Do("unlock scanner", "e not locked")
	a.Do("LOCK  Printer  007 ", "l locked") // case matters in keys alone
	b.Send("lock printer 30000")
	a.Do("unlock printer", "u unlocked")
	b.Expect("l locked")

	// A pipeline: what follows the wait is executed after it.
	c.Send("lock printer 30000", "unlock printer", "lock scanner 0")
	b.Close()
	c.Expect("l locked", "u unlocked", "l locked")
	a.Send("lock scanner 30000")
	c.Reset()
	a.Expect("l locked")

	// A syntax error ends the connection; what came before it counts, what it held is free.
	e := d.dial()
	e.Send("lock plotter 0", " lock scanner 0", "unlock plotter")
	e.Expect("l locked")
	e.ExpectEnd()
	a.Do("lock plotter 30000", "l locked")
	warning, ok := d.log.await("client dropped: syntax error")
	if !ok || warning.text("client") != e.Conn().LocalAddr().String() || warning.text("level") != "warn" {
		t.Errorf("the warning is %v", warning)
	}
}

// The same through the real netcat, which closes its side when its input ends.
func TestNetcat(t *testing.T) {
	nc, err := exec.LookPath("nc")
	if err != nil {
		t.Skip("there is no nc here")
	}
	d := start(t)
	host, port, _ := strings.Cut(d.address, ":")
	for _, key := range []string{"a", "b", "c", "d"} { // on both loops
		cmd := exec.Command(nc, "-N", "-w", "30", host, port)
		cmd.Stdin = strings.NewReader("lock " + key + " 100\r\nlock " + key + " 100\r\nunlock " + key + "\r\nunlock " + key + "\r\n")
		output, err := cmd.Output()
		want := "l locked\r\ne already locked\r\nu unlocked\r\ne not locked\r\n"
		if err != nil || string(output) != want {
			t.Errorf("nc: %q, %v, want %q", output, err, want)
		}
	}
}

// All interfaces, both families, by port number alone.
func TestListensEverywhere(t *testing.T) {
	d := startWith(t, launch{}, "0")
	_, port, ok := strings.Cut(d.address, ":")
	if !ok || port == "" || port == "0" {
		t.Fatalf("the address is %q", d.address)
	}
	port = d.address[strings.LastIndex(d.address, ":")+1:]
	holder := prototest.Dial(t, "127.0.0.1:"+port)
	holder.Do("lock a 0", "l locked")
	for _, host := range []string{"127.0.0.2", "[::1]"} {
		prototest.Dial(t, host+":"+port).Do("lock a 0", "t timeout")
	}
}
