package admin

import (
	"crypto/sha256"
	_ "embed" // the page
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
)

// The status page is one file that loads no other. Its script reads the API, and asks for the token where one is needed.
var (
	//go:embed page.html
	pageFrame string
	//go:embed page.css
	pageStyle string
	//go:embed page_base.js
	pageBase string
	//go:embed page_draw.js
	pageDraw string
	//go:embed page_status.js
	pageStatus string
	//go:embed page_lists.js
	pageLists string
	//go:embed page_fleet.js
	pageFleet string
	//go:embed page_detail.js
	pageDetail string
	//go:embed page.js
	pageMain string

	pageScript = pageBase + pageDraw + pageStatus + pageLists + pageFleet + pageDetail + pageMain
	page       = []byte(fill(fill(pageFrame, "style", pageStyle), "script", pageScript))
)

// pagePolicy lets a browser run the page's script and use its style, which it knows by their hashes, and connect to this
// server alone. The icon is an image within the page.
var pagePolicy = strings.Join([]string{
	"default-src 'none'",
	"script-src " + sourceHash(pageScript),
	"style-src " + sourceHash(pageStyle),
	"connect-src 'self'",
	"img-src data:",
	"base-uri 'none'",
	"form-action 'none'",
	"frame-ancestors 'none'",
	"require-trusted-types-for 'script'",
}, "; ")

// fill puts a text into the empty element of that name, of which there must be exactly one.
func fill(frame, element, text string) string {
	empty := fmt.Sprintf("<%s></%s>", element, element)
	if strings.Count(frame, empty) != 1 || strings.Contains(text, "</"+element) {
		panic(fmt.Sprintf("admin: the page needs exactly one %s, and the text must not close it", empty))
	}
	return strings.Replace(frame, empty, fmt.Sprintf("<%s>%s</%s>", element, text, element), 1)
}

// sourceHash returns the hash of a script or a style as a policy names it.
func sourceHash(text string) string {
	hash := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(hash[:]) + "'"
}

func servePage(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", pagePolicy)
	_, _ = w.Write(page) // the client may be gone
}
