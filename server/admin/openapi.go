package admin

import (
	_ "embed" // the description
	"net/http"
)

// openAPI describes the API, in the words of OpenAPI 3.0. A test compares it with the routes, the types and the answers.
//
//go:embed openapi.json
var openAPI []byte

// description answers with the description of the API.
func (a *endpoints) description(w http.ResponseWriter, r *http.Request) {
	if _, err := parseQuery(r, nil); err != nil {
		a.failed(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(openAPI) // the client may be gone
}
