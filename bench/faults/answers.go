package faults

import (
	"strconv"
	"strings"
)

// Answers that tell something: a token, or the lock space.

// tokenIs begins an answer that tells a token.
const tokenIs = "f"

// kind returns an answer without its numbers.
func kind(reply string) string {
	for _, begin := range []string{tokenIs, named} {
		if strings.HasPrefix(reply, begin+" ") {
			return begin
		}
	}
	return reply
}

// readToken notes the token of a grant. It must be the same whenever it is asked for.
func (v *verdict) readToken(s *session, op, grant *operation) {
	token, err := strconv.ParseUint(op.reply[len(tokenIs)+1:], 10, 63)
	switch {
	case err != nil || token == 0:
		v.violate("session %d: fence %s was answered %q", s.id, op.key, op.reply)
	case grant.token != 0 && grant.token != token:
		v.violate("session %d: the token of %s was %d, and is %d", s.id, op.key, grant.token, token)
	case grant.token == 0:
		grant.token, grant.tokenRead = token, op.answered
	}
}

// readSpace notes the name of the lock table in the answer to a name. It is the same for all connections, whatever process serves them.
func (v *verdict) readSpace(s *session, op *operation) {
	words := strings.Fields(op.reply)
	const silence, space, all = 2, 3, 4
	if len(words) != all || v.space != "" && v.space != words[space] {
		v.violate("session %d: name was answered %q, and another session was told the space %s", s.id, op.reply, v.space)
		return
	}
	if n, err := strconv.Atoi(words[silence]); err != nil || n < 0 {
		v.violate("session %d: name was answered %q", s.id, op.reply)
	}
	v.space = words[space]
}
