package cmdline

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/alecthomas/kong"
)

// Empty is unset for every type, blanks and carriage returns do not count, and the environment of child processes stays as it
// was.
func TestEnvironment(t *testing.T) {
	type commandLine struct {
		Number int      `default:"7" env:"CMDLINE_TEST_NUMBER"`
		Text   string   `default:"seven" enum:"seven,eight" env:"CMDLINE_TEST_TEXT"`
		List   []string `sep:" " env:"CMDLINE_TEST_LIST"`
		On     bool     `env:"CMDLINE_TEST_ON"`
		Sub    struct {
			Deep int `default:"1" env:"CMDLINE_TEST_DEEP"`
		} `cmd:"" default:"1"`
	}
	for _, c := range []struct {
		number, text, list, on, deep string
		want                         commandLine
	}{
		{"", "", "", "", "", commandLine{Number: 7, Text: "seven"}},
		{" ", "\r", "\t\r\n", "  ", " \r", commandLine{Number: 7, Text: "seven"}},
		{" 8\r", "eight\r", " a b\r", "true \r", "3\r", commandLine{Number: 8, Text: "eight", List: []string{"a", "b"}, On: true}},
	} {
		given := map[string]string{
			"CMDLINE_TEST_NUMBER": c.number, "CMDLINE_TEST_TEXT": c.text, "CMDLINE_TEST_LIST": c.list, "CMDLINE_TEST_ON": c.on,
			"CMDLINE_TEST_DEEP": c.deep,
		}
		for name, value := range given {
			t.Setenv(name, value)
		}
		var got commandLine
		parser, err := kong.New(&got)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(parser, nil); err != nil {
			t.Errorf("%q: %v", given, err)
			continue
		}
		deep := 1
		if c.deep == "3\r" {
			deep = 3
		}
		if got.Number != c.want.Number || got.Text != c.want.Text || len(got.List) != len(c.want.List) || got.On != c.want.On || got.Sub.Deep != deep {
			t.Errorf("%q: %+v, want %+v", given, got, c.want)
		}
		for name, value := range given {
			if after, set := os.LookupEnv(name); !set || after != value {
				t.Errorf("%s is %q afterwards, and was %q", name, after, value)
			}
		}
	}
}

// What is wrong with a command line is said in words for people.
func TestPlainWords(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--loops"}, "--loops: the value is missing"},
		{[]string{"--text"}, "--text: the value is missing"},
		{[]string{"--loops=many"}, `--loops: want a whole number, not "many"`},
		{[]string{"--loops", "-1"}, `--loops: "-1" looks like an option: write --loops="-1"`},
		{[]string{"--text", "--loops"}, `--text: "--loops" looks like an option: write --text="--loops"`},
		{[]string{"--unsigned=1.5"}, `--unsigned: want a whole number, not "1.5"`},
		{[]string{"--time", "30"}, "--time: 30 has no unit: want a duration like 30s, 5m or 2h"},
		{[]string{"--time=soon"}, `--time: want a duration like 30s, 5m or 2h, not "soon"`},
		{[]string{"--time="}, `--time: want a duration like 30s, 5m or 2h, not ""`},
		{[]string{"first"}, `port: want a whole number, not "first"`},
		{nil, `--number: want a whole number, not "many" (from CMDLINE_TEST_NUMBER)`},
		{[]string{"--loop=1"}, `unknown flag --loop, did you mean "--loops"?`},
	} {
		var line struct {
			Port     int `arg:"" optional:""`
			Number   int `env:"CMDLINE_TEST_NUMBER"`
			Loops    int
			Unsigned uint
			Time     time.Duration
			Text     string
		}
		parser, err := kong.New(&line)
		if err != nil {
			t.Fatal(err)
		}
		if c.args == nil {
			t.Setenv("CMDLINE_TEST_NUMBER", "many")
		} else {
			t.Setenv("CMDLINE_TEST_NUMBER", "")
		}
		_, err = Parse(parser, c.args)
		var theirs *kong.ParseError
		if err == nil || err.Error() != c.want || !errors.As(err, &theirs) {
			t.Errorf("%q: %v, want %s", c.args, err, c.want)
		}
	}
}

// A word that is missing is named as well.
func TestMissingWord(t *testing.T) {
	var line struct {
		Release struct {
			Key string `arg:""`
		} `cmd:""`
	}
	parser, err := kong.New(&line)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = Parse(parser, []string{"release"}); err == nil || err.Error() != "the key is missing" {
		t.Errorf("%v", err)
	}
}
