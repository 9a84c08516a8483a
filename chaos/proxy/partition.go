package proxy

import "slices"

// Partitions are sets of pairs to put a mode on. A line is the connections of the one who dials: to take a pair of nodes
// apart, both its lines must fail.

// Apart is the pairs between groups, both ways: a symmetric partition. A node in no group speaks with all; one that stands
// so between two halves is the bridge.
func Apart(groups ...[]string) (pairs []Pair) {
	for i, group := range groups {
		for j, other := range groups {
			if i == j {
				continue
			}
			pairs = append(pairs, Between(group, other)...)
		}
	}
	return pairs
}

// Between is the pairs by which one side dials the other. Alone it is an asymmetric partition: nobody of `from` reaches
// anybody of `to`, who reach them.
func Between(from, to []string) (pairs []Pair) {
	for _, a := range from {
		for _, b := range to {
			if a != b {
				pairs = append(pairs, Pair{a, b})
			}
		}
	}
	return pairs
}

// Ring is all pairs but those from each node to the next: everyone dials one other, no two the same.
func Ring(nodes []string) (pairs []Pair) {
	for i, from := range nodes {
		next := nodes[(i+1)%len(nodes)]
		for _, to := range nodes {
			if to != from && to != next {
				pairs = append(pairs, Pair{from, to})
			}
		}
	}
	return pairs
}

// Without is all names but one.
func Without(names []string, one string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == one })
}
