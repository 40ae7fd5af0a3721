package proto

import (
	"math/big"
	"regexp"
	"time"
)

// The grammar once more, as regular expressions over the whole input: slow, and plain enough to be right by reading.
// (No (?i), as that takes the Kelvin sign for a k.)
const (
	lockRE    = `[lL][oO][cC][kK]`
	unlockRE  = `[uU][nN][lL][oO][cC][kK]`
	keyRE     = `[A-Za-z0-9]+`
	timeoutRE = `[0-9]+`
)

var (
	lockCommand   = regexp.MustCompile(`^` + lockRE + ` +(` + keyRE + `) +(` + timeoutRE + `) *\r\n`)
	unlockCommand = regexp.MustCompile(`^` + unlockRE + ` +(` + keyRE + `) *\r\n`)

	// prefixes are the beginnings of commands, and why a byte that continues none of them is an error behind them.
	prefixes = []struct {
		re     *regexp.Regexp
		reason Reason
	}{
		{longest(`|[lL]|[lL][oO]|[lL][oO][cC]`), WantKeyword},
		{longest(`[uU]|[uU][nN]|[uU][nN][lL]|[uU][nN][lL][oO]|[uU][nN][lL][oO][cC]`), WantKeyword},
		{longest(lockRE + `|` + unlockRE), WantSpace},
		{longest(lockRE + ` +|` + unlockRE + ` +`), WantKey},
		{longest(lockRE + ` +` + keyRE), WantKeyOrSpace},
		{longest(unlockRE + ` +` + keyRE), WantKeyOrEnd},
		{longest(lockRE + ` +` + keyRE + ` +`), WantTimeout},
		{longest(lockRE + ` +` + keyRE + ` +` + timeoutRE), WantDigitOrEnd},
		{longest(lockRE + ` +` + keyRE + ` +` + timeoutRE + ` +`), WantEnd},
		{longest(unlockRE + ` +` + keyRE + ` +`), WantEnd},
		{longest(lockRE + ` +` + keyRE + ` +` + timeoutRE + ` *\r`), WantLF},
		{longest(unlockRE + ` +` + keyRE + ` *\r`), WantLF},
	}
)

func longest(expr string) *regexp.Regexp {
	re := regexp.MustCompile(`^(` + expr + `)`)
	re.Longest()
	return re
}

// grammar returns what any parser of the protocol has to make of the input.
func grammar(input []byte) transcript {
	var tr transcript
	for {
		rest := input[tr.consumed:]
		within := rest[:min(len(rest), MaxCommand)]
		if m := lockCommand.FindSubmatch(within); m != nil {
			tr.commands = append(tr.commands, parsed{Lock, string(m[1]), timeoutOf(string(m[2]))})
			tr.consumed += len(m[0])
			continue
		}
		if m := unlockCommand.FindSubmatch(within); m != nil {
			tr.commands = append(tr.commands, parsed{Unlock, string(m[1]), 0})
			tr.consumed += len(m[0])
			continue
		}

		good, reason := 0, WantKeyword
		for _, prefix := range prefixes {
			if n := len(prefix.re.Find(within)); n > good {
				good, reason = n, prefix.reason
			}
		}
		tr.consumed += good
		switch {
		case good == len(rest):
			tr.idle = good == 0
			return tr
		case good == MaxCommand:
			reason = TooLong
		}
		tr.err = SyntaxError{reason, good + 1, rest[good]}
		return tr
	}
}

func timeoutOf(digits string) time.Duration {
	n, _ := new(big.Int).SetString(digits, 10)
	n.Mul(n, big.NewInt(int64(time.Millisecond)))
	if n.Cmp(big.NewInt(int64(MaxTimeout))) > 0 {
		return MaxTimeout
	}
	return time.Duration(n.Int64())
}
