package cmdline

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/alecthomas/kong"
)

// Page is what a manual page says beside what the command line says of itself.
type Page struct {
	Section int    // 1 for commands of everybody, 8 for daemons
	Summary string // what the program is, in a few words
	SeeAlso string // other pages, like "dreadlockctl(1), nc(1)"
}

// sections are the paragraphs of a description that become sections of a page: those that begin with one of these words and a
// colon.
var sections = []string{"Exit status", "Signals", "Files"}

// WriteMan writes the manual page of a program, in the language of man(7). All of it comes from the model, so that it cannot say
// anything else than --help: description, options with their variables, and for each command its arguments, options and help.
// Hidden commands and options are left out.
//
// There is a library for kong, mango-kong; it knows no environment variables, no arguments and no examples.
func WriteMan(w io.Writer, app *kong.Application, page Page) error {
	var b strings.Builder
	date := ""
	if at := Built(); !at.IsZero() {
		date = at.UTC().Format("2006-01-02")
	}
	name := app.Name
	fmt.Fprintf(&b, ".TH %s %d %q %q\n", strings.ToUpper(name), page.Section, date, name+" "+ShortVersion())
	b.WriteString(".nh\n.ad l\n") // no hyphens in options and paths
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", escape(name), escape(page.Summary))
	b.WriteString(".SH SYNOPSIS\n")
	b.WriteString(synopsis(app.Node) + "\n")
	description, rest := split(app.Help)
	b.WriteString(".SH DESCRIPTION\n")
	writeText(&b, description)
	if commands := visible(app.Node); len(commands) > 0 {
		b.WriteString(".SH COMMANDS\n")
		for _, c := range commands {
			writeCommand(&b, c)
		}
	}
	b.WriteString(".SH OPTIONS\n")
	if len(app.Children) > 0 {
		b.WriteString("Those of all commands.\n")
	}
	writeOptions(&b, app.Node)
	for _, section := range rest {
		title, text, _ := strings.Cut(section, ":")
		fmt.Fprintf(&b, ".SH %s\n", strings.ToUpper(title))
		text = strings.TrimSpace(text)
		first, size := utf8.DecodeRuneInString(text)
		writeText(&b, string(unicode.ToUpper(first))+text[size:])
	}
	fmt.Fprintf(&b, ".SH SEE ALSO\n%s\n", escape(page.SeeAlso))
	_, err := io.WriteString(w, b.String())
	return err
}

// visible returns the commands that are not hidden.
func visible(node *kong.Node) (all []*kong.Node) {
	for _, c := range node.Children {
		if !c.Hidden {
			all = append(all, c)
		}
	}
	return all
}

// synopsis returns how a program or a command is called.
func synopsis(node *kong.Node) string {
	text := `\fB` + escape(node.FullPath()) + `\fR`
	if len(flags(node)) > 0 {
		text += ` [\fIoption\fR]...`
	}
	if len(visible(node)) > 0 {
		text += ` \fIcommand\fR`
	}
	for _, arg := range node.Positional {
		one := `\fI` + escape(arg.Name) + `\fR`
		if arg.Passthrough {
			one = `\fB\-\-\fR ` + one
		}
		if arg.IsCumulative() {
			one += "..."
		}
		if arg.Tag.Optional {
			one = "[" + one + "]"
		}
		text += " " + one
	}
	return text
}

// writeCommand writes the subsection of a command.
func writeCommand(b *strings.Builder, node *kong.Node) {
	fmt.Fprintf(b, ".SS %s\n", synopsis(node))
	writeText(b, node.Help)
	writeOptions(b, node)
	if node.Detail != "" {
		b.WriteString(".PP\n")
		writeText(b, node.Detail)
	}
}

// flags returns the options of a program or a command that are not hidden. Help is one of every command, and shown with the
// program alone.
func flags(node *kong.Node) (all []*kong.Flag) {
	for _, f := range node.Flags {
		if !f.Hidden && (node.Parent == nil || f.Name != "help") {
			all = append(all, f)
		}
	}
	return all
}

// writeOptions writes the arguments and options of a program or a command, each with its help and its variable.
func writeOptions(b *strings.Builder, node *kong.Node) {
	for _, arg := range node.Positional {
		if arg.Help != "" {
			fmt.Fprintf(b, ".TP\n\\fI%s\\fR\n%s\n", escape(arg.Name), line(arg.Help))
		}
	}
	for _, f := range flags(node) {
		b.WriteString(".TP\n")
		if f.Short != 0 {
			fmt.Fprintf(b, `\fB\-%c\fR, `, f.Short)
		}
		fmt.Fprintf(b, `\fB\-\-%s\fR`, escape(f.Name))
		if !f.IsBool() {
			fmt.Fprintf(b, `=\fI%s\fR`, escape(f.FormatPlaceHolder()))
		}
		b.WriteString("\n" + line(f.Help) + "\n")
		if len(f.Envs) > 0 {
			fmt.Fprintf(b, ".br\nEnvironment: %s.\n", escape(strings.Join(f.Envs, ", ")))
		}
	}
}

// split takes from a description the paragraphs that become sections.
func split(text string) (description string, rest []string) {
	var kept []string
	for _, paragraph := range strings.Split(text, "\n\n") {
		isSection := false
		for _, title := range sections {
			isSection = isSection || strings.HasPrefix(paragraph, title+":")
		}
		if isSection {
			rest = append(rest, paragraph)
		} else {
			kept = append(kept, paragraph)
		}
	}
	return strings.Join(kept, "\n\n"), rest
}

// writeText writes paragraphs. Lines that are indented stay as they are; the others are filled.
func writeText(b *strings.Builder, text string) {
	verbatim := false
	end := func() {
		if verbatim {
			b.WriteString(".fi\n.RE\n")
		}
		verbatim = false
	}
	for i, paragraph := range strings.Split(text, "\n\n") {
		end()
		if i > 0 {
			b.WriteString(".PP\n")
		}
		for _, one := range strings.Split(paragraph, "\n") {
			indented := strings.HasPrefix(one, "  ")
			switch {
			case indented && !verbatim:
				b.WriteString(".RS 4\n.nf\n")
				verbatim = true
			case !indented:
				end()
			}
			b.WriteString(line(strings.TrimPrefix(one, "  ")) + "\n")
		}
	}
	end()
}

// line escapes a line of text, which must not look like a request.
func line(text string) string {
	text = escape(text)
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		text = `\&` + text
	}
	return text
}

// escape escapes what has a meaning in roff. A plain "-" would be a hyphen, which nobody can paste into a shell; so would quotes
// and the caret and tilde of examples.
var escape = strings.NewReplacer(
	`\`, `\e`, `-`, `\-`, `'`, `\(aq`, "`", `\(ga`, `^`, `\(ha`, `~`, `\(ti`, "\n", " ",
).Replace
