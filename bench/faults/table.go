package faults

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Write prints a table of what came of the cases: fault, promise, what was measured, and the number of violations.
func Write(out io.Writer, outcomes []*Outcome) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "case\tfault\tpromise\tmeasured\tviolations") //nolint:errcheck // the flush returns the error
	for _, o := range outcomes {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", o.Name, o.Fault, o.Promise, o.figures(), o.count()) //nolint:errcheck // as above
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(out, total(outcomes))
	return err
}

// WriteMarkdown prints the same table for a README.
func WriteMarkdown(out io.Writer, outcomes []*Outcome) error {
	var b strings.Builder
	b.WriteString("| fault | promise | measured | violations |\n|---|---|---|---|\n")
	for _, o := range outcomes {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", o.Fault, o.Promise, o.figures(), o.count())
	}
	b.WriteString("\n" + total(outcomes) + "\n")
	_, err := io.WriteString(out, b.String())
	return err
}

func (o *Outcome) figures() string {
	if o.Skipped != "" {
		return o.Skipped
	}
	return o.Measured
}

func (o *Outcome) count() string {
	switch {
	case o.Skipped != "":
		return "-"
	case o.Err != nil:
		return fmt.Sprintf("%d, not run to its end", len(o.Violations))
	}
	return fmt.Sprint(len(o.Violations))
}

// total says how much was checked.
func total(outcomes []*Outcome) string {
	var commands, grants int64
	violations, skipped := 0, 0
	for _, o := range outcomes {
		commands += o.Commands
		grants += o.Grants
		violations += len(o.Violations)
		if o.Skipped != "" {
			skipped++
		}
	}
	text := fmt.Sprintf("%d commands checked in %d cases, %d violations", commands, len(outcomes)-skipped, violations)
	if grants > 0 {
		text += fmt.Sprintf(", %d grants", grants)
	}
	if skipped > 0 {
		text += fmt.Sprintf("; %d cases skipped", skipped)
	}
	return text
}
