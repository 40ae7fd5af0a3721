package server

import (
	"dreadlock/lockmgr"
	"dreadlock/server/api"
)

// former is who held keys when the predecessor was taken over, had ended, and whose keys have not all gone on: they rest, or are still to
// be passed on. It has no session any more.
type former struct {
	identity *identity
	why      reason
	owner    lockmgr.Owner // Tag: the former
}

var _ holder = (*former)(nil)

func newFormer(i *identity, why reason) *former {
	f := &former{identity: i, why: why}
	f.owner.Tag = f
	return f
}

func (f *former) peer() api.Peer    { return f.identity.peer() }
func (f *former) party() party      { return f.identity.party() }
func (f *former) known() *identity  { return f.identity }
func (f *former) ending() reason    { return f.why }
func (f *former) taken(*shard, int) {}
