package server

// identity is what a client has said of itself. It does not change: a client that says something else gets another one.
type identity struct {
	name  string // what it is shown as
	owner string // to whom the connection belongs, with others of the same owner
}

// belongs reports whether there is an owner. A nil identity has none.
func (i *identity) belongs() bool { return i != nil && i.owner != "" }
