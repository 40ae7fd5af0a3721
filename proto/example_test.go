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
	for _, fragment := range []string{"lock printer 5", "00\r\nfence printer\r\nUNLOCK printer\r\nlo", "ck my-key 1\r\n"} {
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
	// fence printer 0s
	// unlock printer 0s
	// proto: column 8: want a letter, a digit or a space, got "-"
}

func ExampleAppendLock() {
	fmt.Printf("%q\n", proto.AppendLock(nil, "printer", 1500*time.Microsecond))
	// Output: "lock printer 2\r\n"
}

// A client reads what the server answers to a lock and a fence in one write.
func ExampleParseReply() {
	fmt.Printf("%q\n", proto.AppendFence(proto.AppendLock(nil, "printer", time.Second), "printer"))
	for _, line := range []string{"l locked\r\n", "f 1764043200000000001\r\n", "e kicked\r\n"} {
		answer, err := proto.ParseReply([]byte(line))
		switch {
		case err != nil:
			fmt.Println(err)
		case answer.Reply == proto.Token:
			fmt.Println("token", answer.Token)
		case answer.Text != "":
			fmt.Println("the server says:", answer.Text)
		default:
			fmt.Println(answer.Reply.Outcome())
		}
	}
	// Output:
	// "lock printer 1000\r\nfence printer\r\n"
	// locked
	// token 1764043200000000001
	// the server says: kicked
}
