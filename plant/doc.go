// Package plant is a simulated plant: one site of three lines with 24 machines
// of four classes, their slow sensors once a second and an acceleration channel
// each, made of shaft, blade, gear and bearing kinematics under a changing load.
// One bearing degrades to its failure, three sensors lie, one edge loses its
// network for a while.
//
// All of it is a function of the seed and the time: from any position the same
// samples come again, bit by bit. What the plant knows of its own faults is in
// package truth, and reaches no station.
package plant
