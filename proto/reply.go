package proto

// The replies, whole lines as they are sent; doc.go says when.
const (
	ReplyLocked             = "l locked\r\n"
	ReplyTimeout            = "t timeout\r\n"
	ReplyUnlocked           = "u unlocked\r\n"
	ReplyAlreadyLocked      = "e already locked\r\n"
	ReplyNotLocked          = "e not locked\r\n"
	ReplyNotOwner           = "e not owner\r\n"
	ReplyDeadlock           = "e deadlock\r\n"
	ReplyTooManyConnections = "e too many connections\r\n"
)
