package server

import (
	"bytes"
	"slices"
	"strings"

	"dreadlock/proto"
)

const (
	commandsHint = "the commands are lock KEY MILLISECONDS, unlock KEY, fence KEY, name TEXT and owner ID"
	timeoutHint  = "the timeout is missing: lock KEY MILLISECONDS, with 0 not to wait"
)

// hints say what to send instead of what is a syntax error. The first one holds whose conditions are all met; a condition that is not
// given is met.
var hints = []struct {
	begin   string         // the command begins so
	within  string         // its line has this in it
	at      string         // the wrong byte is one of these
	reasons []proto.Reason // for which the byte is wrong
	hint    string
}{
	{begin: "\x16", hint: "this is TLS at an address without it: connect without TLS, or listen at a tls:// address"},
	{within: " HTTP/", hint: "this is HTTP: the status page and the API are at the address that --admin gives"},
	{begin: "PROXY ", hint: proxyHint},
	{begin: "\r\n\r\n\x00\r\nQUIT\n", hint: proxyHint},
	{begin: "*", hint: "this is the protocol of Redis: " + commandsHint},
	{begin: "\r", hint: "there are no empty lines"},
	{begin: "\n", hint: "there are no empty lines"},
	{at: "\n", hint: "a line ends with CR LF, not with LF alone: nc -C sends both"},
	{begin: " ", hint: "there is no space before a command"},
	{at: "\t", hint: "words are separated by spaces, not by tabs"},
	{
		at:      "\r",
		reasons: []proto.Reason{proto.WantSpace, proto.WantKey, proto.WantText, proto.WantID},
		hint:    "a word is missing: " + commandsHint,
	},
	{at: "\r", reasons: []proto.Reason{proto.WantKeyOrSpace, proto.WantTimeout}, hint: timeoutHint},
	{reasons: []proto.Reason{proto.WantKeyword, proto.WantSpace}, hint: commandsHint},
	{
		reasons: []proto.Reason{proto.WantKey, proto.WantKeyOrSpace, proto.WantKeyOrEnd},
		hint:    "a key has letters and digits alone, A-Z, a-z and 0-9",
	},
	{reasons: []proto.Reason{proto.WantTimeout, proto.WantDigitOrEnd}, hint: "a timeout is whole milliseconds, without a sign and a unit"},
	{reasons: []proto.Reason{proto.WantText, proto.WantTextOrEnd}, hint: "a name is one word of printable ASCII"},
	{reasons: []proto.Reason{proto.WantID, proto.WantIDOrEnd}, hint: "an owner has letters and digits alone"},
	{reasons: []proto.Reason{proto.WantEnd}, hint: "there is a word too many, or a name has more than 128 bytes or an owner more than 64"},
	{reasons: []proto.Reason{proto.WantLF}, hint: "a line ends with CR LF, not with CR alone"},
	{reasons: []proto.Reason{proto.TooLong}, hint: "a command has at most 10,000 bytes"},
}

const proxyHint = "this is the header of a proxy: listen with ?proxy= and its address, or have it send none"

// hint says to a person who reads the log what a client should have sent. The input has a syntax error at byte n, and may begin within
// the command.
func hint(err *proto.SyntaxError, input []byte, n int) string {
	var line []byte // none if its beginning came earlier
	if begin := n + 1 - err.Column; begin >= 0 {
		line = input[begin:]
	}
	first, _, _ := bytes.Cut(line, []byte("\n"))
	for i := range hints {
		h := &hints[i]
		if bytes.HasPrefix(line, []byte(h.begin)) && bytes.Contains(first, []byte(h.within)) &&
			(h.at == "" || strings.IndexByte(h.at, err.Byte) >= 0) && (h.reasons == nil || slices.Contains(h.reasons, err.Reason)) {
			return h.hint
		}
	}
	return commandsHint
}
