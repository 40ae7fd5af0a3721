package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// root is the top of the repository, as seen from here.
const root = "../../.."

// block is a fenced block of a document.
type block struct {
	file  string // from root
	line  int    // of its fence
	lang  string
	marks string // what follows the language
	lines []string
}

func (b block) String() string { return fmt.Sprintf("%s:%d", b.file, b.line) }

// A document is a Markdown file; text is without what is in fenced blocks.
type document struct {
	file   string // from root
	lines  []string
	text   []string
	blocks []block
	bad    []string // what is wrong with its form
}

// documents returns all Markdown files of the repository.
func documents(t *testing.T) []document {
	t.Helper()
	var files []string
	err := filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		switch name := entry.Name(); {
		case err != nil:
			return err
		case entry.IsDir() && (name == "node_modules" || name == ".git" || name == ".bin"):
			return filepath.SkipDir
		case filepath.Ext(path) == ".md":
			files = append(files, path)
		}
		return nil
	})
	if err != nil || !slices.Contains(files, filepath.Join(root, "README.md")) {
		t.Fatalf("the documents are not found: %v, %v", files, err)
	}
	var all []document
	for _, path := range files {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		file, err := filepath.Rel(root, path)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, parse(file, string(content)))
	}
	return all
}

// An item of a list may go on with indented lines: those are no code.
var listItem = regexp.MustCompile(`^\s*([-*]|\d+\.) `)

func parse(file, content string) document {
	doc := document{file: file, lines: strings.Split(strings.TrimSuffix(content, "\n"), "\n")}
	var open *block
	inList, before := false, ""
	for i, line := range doc.lines {
		switch {
		case open != nil && line == "```":
			doc.blocks, open = append(doc.blocks, *open), nil
			doc.text = append(doc.text, "")
		case open != nil:
			open.lines = append(open.lines, line)
			doc.text = append(doc.text, "")
		case strings.HasPrefix(line, "```"):
			lang, marks, _ := strings.Cut(strings.TrimPrefix(line, "```"), " ")
			open = &block{file: file, line: i + 1, lang: lang, marks: marks}
			doc.text = append(doc.text, "")
		default:
			inList = listItem.MatchString(line) || inList && (line == "" || strings.HasPrefix(line, " "))
			if !inList && before == "" && strings.HasPrefix(line, "    ") {
				doc.bad = append(doc.bad, fmt.Sprintf("%s:%d: code that is indented: fence it, and name its language", file, i+1))
			}
			doc.text = append(doc.text, line)
		}
		before = line
	}
	if open != nil {
		doc.bad = append(doc.bad, fmt.Sprintf("%s: the block has no end", open))
	}
	return doc
}

var (
	shells  = []string{"sh", "bash", "shell", "console", "crontab"}
	runs    = regexp.MustCompile(`^run( each)?( held)?$`)
	skipped = regexp.MustCompile(`^not run: \S`)
)

// Every block of shell is run, or says why it is not.
func TestMarks(t *testing.T) {
	for _, doc := range documents(t) {
		for _, bad := range doc.bad {
			t.Error(bad)
		}
		for _, b := range doc.blocks {
			marked := runs.MatchString(b.marks) || skipped.MatchString(b.marks)
			switch {
			case b.lang == "":
				t.Errorf("%s: the block has no language; text is one", b)
			case slices.Contains(shells, b.lang) && !marked:
				t.Errorf("%s: want %q or %q after %s, not %q", b, "run", "not run: REASON", b.lang, b.marks)
			case b.marks != "" && !marked:
				t.Errorf("%s: unknown mark %q", b, b.marks)
			}
		}
	}
}

// Whoever comes here first reads the front page to its end.
func TestFrontPageIsShort(t *testing.T) {
	for _, doc := range documents(t) {
		if n := len(doc.lines); doc.file == "README.md" && n > 200 {
			t.Errorf("README.md has %d lines, want at most 200: move what a newcomer can do without", n)
		}
	}
}

func TestParse(t *testing.T) {
	doc := parse("x.md", "# A\n\n```sh run\nls\n```\n\n- a\n\n    goes on\n\nend\n\n    code\n")
	if b := doc.blocks; len(b) != 1 || b[0].lang != "sh" || b[0].marks != "run" || !slices.Equal(b[0].lines, []string{"ls"}) {
		t.Errorf("blocks %+v", doc.blocks)
	}
	if want := []string{"x.md:13: code that is indented: fence it, and name its language"}; !slices.Equal(doc.bad, want) {
		t.Errorf("bad %q, want %q", doc.bad, want)
	}
	if doc = parse("x.md", "```sh\nls\n"); len(doc.bad) != 1 {
		t.Errorf("bad %q, want a block without end", doc.bad)
	}
}
