//go:build !linux

package handover

// readControl takes nothing from a packet's control messages: upgrades without a gap are for Linux.
func (p *Packet) readControl([]byte) {}

// writeControl writes nothing.
func (p *Packet) writeControl([]byte) int { return 0 }
