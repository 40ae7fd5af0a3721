package docs

import (
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	link     = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	source   = regexp.MustCompile(`(?:src|srcset|href)="([^"]+)"`)
	code     = regexp.MustCompile("`[^`]*`")
	heading  = regexp.MustCompile(`^#+ +(.*)$`)
	unwanted = regexp.MustCompile(`[^\p{L}\p{N}\p{M}_ -]`)
)

// anchor is the name that GitHub gives a heading.
func anchor(heading string) string {
	heading = link.ReplaceAllString(heading, "]")
	return strings.ReplaceAll(unwanted.ReplaceAllString(strings.ToLower(heading), ""), " ", "-")
}

func (doc *document) anchors() map[string]bool {
	names := map[string]bool{}
	for _, line := range doc.text {
		if m := heading.FindStringSubmatch(line); m != nil {
			names[anchor(m[1])] = true
		}
	}
	return names
}

// Links inside the repository lead somewhere. Those to other sites are not followed.
func TestLinks(t *testing.T) {
	docs := documents(t)
	anchors := map[string]map[string]bool{}
	for i := range docs {
		anchors[docs[i].file] = docs[i].anchors()
	}
	found := 0
	for _, doc := range docs {
		for i, line := range doc.text {
			line = code.ReplaceAllString(line, "")
			for _, m := range append(link.FindAllStringSubmatch(line, -1), source.FindAllStringSubmatch(line, -1)...) {
				to, err := url.Parse(m[1])
				if err != nil {
					t.Errorf("%s:%d: %v", doc.file, i+1, err)
					continue
				}
				if to.Scheme != "" {
					continue
				}
				found++
				file := doc.file
				if to.Path != "" {
					file = filepath.Join(filepath.Dir(doc.file), to.Path)
				}
				if _, err := os.Stat(filepath.Join(root, file)); err != nil {
					t.Errorf("%s:%d: there is no %s", doc.file, i+1, file)
				} else if known, is := anchors[file]; is && to.Fragment != "" && !known[to.Fragment] {
					t.Errorf("%s:%d: %s has no heading %q", doc.file, i+1, file, to.Fragment)
				}
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d links were found", found)
	}
}

func TestAnchor(t *testing.T) {
	for from, want := range map[string]string{
		"A fleet": "a-fleet",
		"What is guaranteed, and how a lock can be lost": "what-is-guaranteed-and-how-a-lock-can-be-lost",
		"[`proto`](proto): words & bytes":                "proto-words--bytes",
	} {
		if got := anchor(from); got != want {
			t.Errorf("%q: %q, want %q", from, got, want)
		}
	}
}
