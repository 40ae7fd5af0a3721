package server

// What a server that is one of a fleet hands over besides.

// fleetLeft is what is known of the fleet.
type fleetLeft struct{}

// placeLeft is a place in a line of a loop.
type placeLeft struct{}

// lineLeft is a line of a loop.
type lineLeft struct{}
