package proto_test

import (
	"fmt"
	"time"

	"dreadlock/proto"
)

// A server's read loop: the input comes in fragments, and a fragment may hold several commands or a part of one.
func ExampleParser() {
	var p proto.Parser
	var cmd proto.Command
	for _, fragment := range []string{"lock printer 5", "00\r\nUNLOCK printer\r\nlo", "ck my-key 1\r\n"} {
		data := []byte(fragment)
		for len(data) > 0 {
			n, status := p.Next(data, &cmd)
			data = data[n:]
			if status == proto.Complete {
				fmt.Printf("%v %s %v\n", cmd.Kind, cmd.Arg, cmd.Timeout)
			}
			if status == proto.Invalid {
				fmt.Println(p.Err())
				return
			}
		}
	}
	// Output:
	// lock printer 500ms
	// unlock printer 0s
	// proto: column 8: want a letter, a digit or a space, got "-"
}

func ExampleAppendLock() {
	fmt.Printf("%q\n", proto.AppendLock(nil, "printer", 1500*time.Microsecond))
	// Output: "lock printer 2\r\n"
}
