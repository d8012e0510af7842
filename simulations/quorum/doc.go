// Package quorum is a world of vantages in virtual time: the code that makes verdicts (packages health and health/vantage) on a network that is
// modelled, with PoPs that die, slow down or are cut off, with clocks that disagree, and with a vantage that lies. It measures how long verdicts
// take, and counts the false ones.
package quorum
