package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/pontoon-registry/pontoon/chaos/proxy"
)

// This file spoils what nodes and store say to each other. All are confined: manifests and tags need no store.

// storeFaults let the store fail in the ways in which stores do.
func storeFaults() []fault {
	reads := []proxy.Operation{proxy.GetObject, proxy.HeadObject}
	return []fault{
		{name: "s3-slowdown", weight: 1, confined: true, inject: disturb(nil, certain(proxy.Effect{Do: proxy.Refuse}))},
		{name: "s3-errors", weight: 1, confined: true, inject: disturb(nil, certain(proxy.Effect{Do: proxy.Refuse, Code: "InternalError"}))},
		{name: "s3-hang", weight: 1, confined: true, inject: disturb(slices.Concat(proxy.Writes(), reads), certain(proxy.Effect{Do: proxy.Hang}))},
		{name: "s3-lost", weight: 2, confined: true, inject: disturb(proxy.Writes(), within(proxy.Lose, 0, 2*time.Second))},
		{name: "s3-late", weight: 2, confined: true, inject: disturb(proxy.Writes(), within(proxy.LateLost, time.Second, lateAtMost))},
		{name: "s3-late-answered", weight: 1, confined: true, inject: disturb(proxy.Writes(), within(proxy.Late, time.Second, 20*time.Second))},
		{name: "s3-twice", weight: 2, confined: true, inject: disturb(proxy.Writes(), within(proxy.Twice, 0, lateAtMost))},
		{name: "s3-truncated", weight: 1, confined: true, inject: disturb([]proxy.Operation{proxy.GetObject, proxy.ListObjectsV2}, certain(proxy.Effect{Do: proxy.Truncate}))},
		{name: "s3-corrupted", weight: 1, confined: true, inject: disturb([]proxy.Operation{proxy.GetObject}, certain(proxy.Effect{Do: proxy.Corrupt}))},
		{name: "s3-lag", weight: 1, confined: true, inject: disturb(nil, within(proxy.Lag, 100*time.Millisecond, 3*time.Second))},
		{name: "s3-stale", weight: 2, hold: [2]time.Duration{3 * time.Second, 15 * time.Second}, confined: true, inject: stale},
		{name: "s3-outage", weight: 1, alone: true, confined: true, inject: outageOfStore},
	}
}

// lateAtMost is how late a write arrives: long after everyone has forgotten it.
const lateAtMost = 90 * time.Second

// lateAnswer is how long the server may take for one that has arrived late.
const lateAnswer = time.Minute

// effect draws what is done to requests.
type effect func(chance *rand.Rand) proxy.Effect

func certain(e proxy.Effect) effect { return func(*rand.Rand) proxy.Effect { return e } }

func within(do proxy.Deed, least, most time.Duration) effect {
	return func(chance *rand.Rand) proxy.Effect {
		return proxy.Effect{Do: do, For: least + time.Duration(chance.Int64N(int64(most-least))).Round(time.Millisecond)}
	}
}

// disturb meets some of the requests of one node or of all: a chance between a tenth and nine of them.
func disturb(operations []proxy.Operation, what effect) injection {
	return func(_ context.Context, a *arena, chance *rand.Rand) (func(context.Context) error, string, error) {
		e, often := what(chance), 0.1+0.8*chance.Float64()
		node, who := "", "all nodes"
		if n := a.d.nodes[chance.IntN(len(a.d.nodes))]; chance.IntN(2) == 0 {
			node, who = n.name, n.name
		}
		detail := fmt.Sprintf("%s: %.0f %% of requests", who, 100*often)
		if e.For > 0 {
			detail += fmt.Sprintf(", by %v", e.For)
		}
		return a.rules(detail, proxy.Rule{Name: string(e.Do), Node: node, Operations: operations, Chance: often, Effect: e})
	}
}

// rules arms rules until they are healed. What is late stays on its way.
func (a *arena) rules(detail string, rules ...proxy.Rule) (func(context.Context) error, string, error) {
	lift, err := a.s3.Arm(rules...)
	return healing(lift), detail, err
}

// stale lets every list say what was, to all nodes: garbage collection looks for what nobody knows by lists.
func stale(_ context.Context, a *arena, _ *rand.Rand) (func(context.Context) error, string, error) {
	return a.rules("lists", proxy.Rule{Name: string(proxy.Stale), Operations: proxy.Lists(), Effect: proxy.Effect{Do: proxy.Stale}})
}

// outageOfStore takes the store from all nodes: it hangs, or it refuses.
func outageOfStore(_ context.Context, a *arena, chance *rand.Rand) (func(context.Context) error, string, error) {
	if chance.IntN(2) == 0 {
		return a.rules("hangs", proxy.Rule{Name: "outage", Effect: proxy.Effect{Do: proxy.Hang}})
	}
	return a.rules("refuses", proxy.Rule{Name: "outage", Effect: proxy.Effect{Do: proxy.Refuse, Code: "ServiceUnavailable"}})
}
