package client

import (
	"context"
	"crypto/rand"
)

// ownerKey is the key of an owner among the values of a context.
type ownerKey struct{}

// WithOwner returns a context whose locks belong to an owner, whatever Options.Owner says: see there for when that is true.
// The owner is letters and digits, see proto.ValidOwner; empty: the locks belong to nobody.
func WithOwner(ctx context.Context, owner string) context.Context {
	return context.WithValue(ctx, ownerKey{}, owner)
}

// ownerOf returns the owner of the locks that are asked for with a context, empty for none.
func (c *Client) ownerOf(ctx context.Context) string {
	if owner, given := ctx.Value(ownerKey{}).(string); given {
		return owner
	}
	return c.options.Owner
}

// ownerToSay returns the owner that a connection has to name before it asks for a key, empty if there is nothing to say. A
// connection that had another owner cannot go back to none: it gets one that nobody else has.
func (c *conn) ownerToSay(want string) string {
	switch want {
	case c.owner:
		return ""
	case "":
		return newOwner()
	}
	return want
}

// newOwner returns an owner that nobody else has.
func newOwner() string { return rand.Text() }
