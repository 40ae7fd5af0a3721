package cmdline

import (
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// jobCommand has what a command can have.
type jobCommand struct {
	Key     string   `arg:"" help:"The key."`
	Command []string `arg:"" optional:"" passthrough:"partial" help:"The command."`
	Wait    string   `short:"w" placeholder:"DURATION" env:"JOB_WAIT" help:"Wait at most this long."`
	Secret  string   `hidden:"" help:"Nobody is told."`
}

// Help has examples.
func (*jobCommand) Help() string {
	return "Examples:\n\n  job run 'a b' -w 5   \\o/\n  .hidden\n\nAnd some\nmore."
}

// A page has everything that is not hidden, and nothing of the text is taken for a request.
func TestMan(t *testing.T) {
	var commandLine struct {
		Run    jobCommand `cmd:"" help:"Run a command."`
		Gone   jobCommand `cmd:"" hidden:"" help:"Nobody is told."`
		On     bool       `help:"It is on."`
		Number int        `default:"7" help:"How many (${default})."`
		Manual bool       `hidden:"" help:"Nobody is told."`
	}
	parser, err := kong.New(&commandLine, kong.Name("job"), kong.Description("Runs jobs.\n\n.And more.\n\nExit status: 0 or 1."))
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	if err := WriteMan(&got, parser.Model, Page{Section: 1, Summary: "run jobs", SeeAlso: "at(1), cron(8)"}); err != nil {
		t.Fatal(err)
	}
	const want = `.nh
.ad l
.SH NAME
job \- run jobs
.SH SYNOPSIS
\fBjob\fR [\fIoption\fR]... \fIcommand\fR
.SH DESCRIPTION
Runs jobs.
.PP
\&.And more.
.SH COMMANDS
.SS \fBjob run\fR [\fIoption\fR]... \fIkey\fR [\fB\-\-\fR \fIcommand\fR...]
Run a command.
.TP
\fIkey\fR
The key.
.TP
\fIcommand\fR
The command.
.TP
\fB\-w\fR, \fB\-\-wait\fR=\fIDURATION\fR
Wait at most this long.
.br
Environment: JOB_WAIT.
.PP
Examples:
.PP
.RS 4
.nf
job run \(aqa b\(aq \-w 5   \eo/
\&.hidden
.fi
.RE
.PP
And some
more.
.SH OPTIONS
Those of all commands.
.TP
\fB\-h\fR, \fB\-\-help\fR
Show context\-sensitive help.
.TP
\fB\-\-on\fR
It is on.
.TP
\fB\-\-number\fR=\fI7\fR
How many (7).
.SH EXIT STATUS
0 or 1.
.SH SEE ALSO
at(1), cron(8)
`
	heading, text, _ := strings.Cut(got.String(), "\n")
	if !strings.HasPrefix(heading, ".TH JOB 1 ") || text != want {
		t.Errorf("%s\n%s", heading, text)
	}
}
