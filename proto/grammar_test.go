package proto

import (
	"math/big"
	"regexp"
	"strings"
	"time"
)

// The grammar once more, as regular expressions over the whole input: slow, but simple enough to be checked by reading. It
// does not use the table of commands.
const (
	keyRE     = `[A-Za-z0-9]+`
	timeoutRE = `[0-9]+`
)

var (
	lockRE   = anyCase("lock")
	unlockRE = anyCase("unlock")
	fenceRE  = anyCase("fence")
	nameRE   = anyCase("name")
	ownerRE  = anyCase("owner")

	wholeCommands = map[Kind]*regexp.Regexp{
		Lock:   regexp.MustCompile(`^` + lockRE + ` +(` + keyRE + `) +(` + timeoutRE + `) *\r\n`),
		Unlock: regexp.MustCompile(`^` + unlockRE + ` +(` + keyRE + `)() *\r\n`),
		Fence:  regexp.MustCompile(`^` + fenceRE + ` +(` + keyRE + `)() *\r\n`),
		Name:   regexp.MustCompile(`^` + nameRE + ` +([!-~]{1,128})() *\r\n`),
		Owner:  regexp.MustCompile(`^` + ownerRE + ` +([A-Za-z0-9]{1,64})() *\r\n`),
	}

	// prefixes are the beginnings of commands, and the reason why a byte that continues none of them is an error there.
	prefixes = []struct {
		re     *regexp.Regexp
		reason Reason
	}{
		{longest(`|` + beginnings("lock") + `|` + beginnings("unlock") + `|` + beginnings("fence") + `|` +
			beginnings("name") + `|` + beginnings("owner")), WantKeyword},
		{longest(lockRE + `|` + unlockRE + `|` + fenceRE + `|` + nameRE + `|` + ownerRE), WantSpace},
		{longest(`(` + lockRE + `|` + unlockRE + `|` + fenceRE + `) +`), WantKey},
		{longest(lockRE + ` +` + keyRE), WantKeyOrSpace},
		{longest(`(` + unlockRE + `|` + fenceRE + `) +` + keyRE), WantKeyOrEnd},
		{longest(nameRE + ` +`), WantText},
		{longest(nameRE + ` +[!-~]{1,127}`), WantTextOrEnd},
		{longest(nameRE + ` +[!-~]{128}`), WantEnd},
		{longest(ownerRE + ` +`), WantID},
		{longest(ownerRE + ` +[A-Za-z0-9]{1,63}`), WantIDOrEnd},
		{longest(ownerRE + ` +[A-Za-z0-9]{64}`), WantEnd},
		{longest(lockRE + ` +` + keyRE + ` +`), WantTimeout},
		{longest(lockRE + ` +` + keyRE + ` +` + timeoutRE), WantDigitOrEnd},
		{longest(beforeCR + ` +`), WantEnd},
		{longest(beforeCR + ` *\r`), WantLF},
	}
	beforeCR = `(` + lockRE + ` +` + keyRE + ` +` + timeoutRE + `|(` + unlockRE + `|` + fenceRE + `) +` + keyRE +
		`|` + nameRE + ` +[!-~]{1,128}|` + ownerRE + ` +[A-Za-z0-9]{1,64})`
)

// anyCase returns an expression for a keyword in any case. ((?i) would take the Kelvin sign for a k.)
func anyCase(keyword string) string {
	var expr strings.Builder
	for _, c := range keyword {
		expr.WriteString(`[` + string(c) + strings.ToUpper(string(c)) + `]`)
	}
	return expr.String()
}

// beginnings returns an expression for every proper beginning of a keyword.
func beginnings(keyword string) string {
	var all []string
	for n := 1; n < len(keyword); n++ {
		all = append(all, anyCase(keyword[:n]))
	}
	return strings.Join(all, `|`)
}

func longest(expr string) *regexp.Regexp {
	re := regexp.MustCompile(`^(` + expr + `)`)
	re.Longest()
	return re
}

// grammar returns the transcript that every correct parser has for the input.
func grammar(input []byte) transcript {
	var tr transcript
commands:
	for {
		rest := input[tr.consumed:]
		within := rest[:min(len(rest), MaxCommand)]
		for kind, re := range wholeCommands {
			if m := re.FindSubmatch(within); m != nil {
				tr.commands = append(tr.commands, parsed{kind, string(m[1]), timeoutOf(string(m[2]))})
				tr.consumed += len(m[0])
				continue commands
			}
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
	if digits == "" {
		return 0
	}
	n, _ := new(big.Int).SetString(digits, 10)
	n.Mul(n, big.NewInt(int64(time.Millisecond)))
	if n.Cmp(big.NewInt(int64(MaxTimeout))) > 0 {
		return MaxTimeout
	}
	return time.Duration(n.Int64())
}
