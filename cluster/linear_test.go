package cluster

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// registerOp is a write of value, or a read when value is empty.
type registerOp struct{ key, value string }

// register is the model: one string per key.
func register() porcupine.Model {
	return porcupine.Model{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			byKey := map[string][]porcupine.Operation{}
			for _, o := range history {
				k := o.Input.(registerOp).key
				byKey[k] = append(byKey[k], o)
			}
			var parts [][]porcupine.Operation
			for _, p := range byKey {
				parts = append(parts, p)
			}
			return parts
		},
		Init: func() any { return "" },
		Step: func(state, input, output any) (bool, any) {
			if v := input.(registerOp).value; v != "" {
				return true, v
			}
			return output.(string) == state.(string), state
		},
	}
}

// TestReadsAndWritesOnAnyNodeAreLinearizableWhileLeadersChange records clients
// on all nodes while leadership is handed about and a leader is killed. A write
// without an answer may take effect at any later time.
func TestReadsAndWritesOnAnyNodeAreLinearizableWhileLeadersChange(t *testing.T) {
	t.Parallel()
	nodes := trio(t)
	var mu sync.Mutex
	var history []porcupine.Operation
	began := time.Now()
	record := func(client int, in registerOp, call time.Duration, out string, err error) {
		end := time.Since(began)
		switch {
		case err != nil && in.value == "":
			return
		case err != nil:
			end = time.Hour
		}
		mu.Lock()
		defer mu.Unlock()
		history = append(history, porcupine.Operation{ClientId: client, Input: in, Call: int64(call), Output: out, Return: int64(end)})
	}
	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for c := range 6 {
		clients.Go(func() {
			at := nodes[c%3]
			for i := 0; ctx.Err() == nil && i < 400; i++ {
				op, call := registerOp{key: fmt.Sprintf("k%d", i%4)}, time.Since(began)
				if i%3 == 0 {
					op.value = fmt.Sprintf("c%d-%d:1", c, i)
					_, err := at.Propose(ctx, putNode(op.key, op.value))
					record(c, op, call, "", err)
					continue
				}
				got, err := addressOf(ctx, at, op.key)
				record(c, op, call, got, err)
			}
		})
	}
	for range 3 {
		leader, _ := leaderOf(t, nodes)
		_ = leader.StepDown(t.Context()) // the next round finds whoever leads
	}
	leader, rest := leaderOf(t, nodes)
	leader.halt(t)
	leaderOf(t, rest)
	eventually(t, "enough operations to prove something", func() error {
		mu.Lock()
		defer mu.Unlock()
		if len(history) < 300 {
			return fmt.Errorf("only %d", len(history))
		}
		return nil
	})
	stop()
	clients.Wait()
	if result, _ := porcupine.CheckOperationsVerbose(register(), history, 3*time.Minute); result != porcupine.Ok {
		t.Errorf("%d operations: %v", len(history), result)
	}
	t.Logf("%d operations", len(history))
}
