// Package docs holds the tests of the documents of the repository: every Markdown file is true, or a test fails.
//
//   - A fenced block of shell says after its language whether it is run: "run", or "not run: " and the reason. GitHub shows neither.
//   - What is run meets the real programs, in an empty directory of its own: see scene_test.go. What it shows must be what it prints.
//   - Configurations of proxies are run with these proxies: see proxies_test.go.
//   - Links lead to files that exist, and to headings that exist. The front page is short.
//   - The recordings are real output with its real timing: go test ./cmd/internal/docs -run Recording -update makes them anew.
package docs
