package main

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"replicanode/node"
	"replicanode/threadpool"
)

// Checkpoints that wait for I/O bytes are found by the numbers that explain shows, and each obeys alone.
func TestOneTaskIsMovedOrCancelled(t *testing.T) {
	n, stop := runNode(t, filepath.Join(t.TempDir(), "data"), 3)
	defer stop()
	c := redis.NewClient(&redis.Options{Addr: n.Addresses().Listen})
	defer c.Close()
	for i := range 60 {
		value := make([]byte, 64<<10)
		_, _ = rand.Read(value) // it never fails
		if err := c.Set(t.Context(), fmt.Sprint("key-", i), value, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	at := func(args ...string) []string {
		return append(args[:2:2], append([]string{"--admin", n.Addresses().Admin}, args[2:]...)...)
	}
	succeeds(t, nil, at("task", "pool", "io_rate=1", "io_burst=1", "max_wait=off")...)
	ended := make(chan string, 3)
	for p := range 3 {
		go func() {
			code, _, stderr := command(t, at("checkpoint", "create", "--partition", fmt.Sprint(p))...)
			ended <- fmt.Sprint(code, " ", stderr)
		}()
	}
	waiting := func() []threadpool.WaitingTask {
		var x node.ExplainAnswer
		if err := json.Unmarshal([]byte(succeeds(t, nil, at("task", "explain", "--json")...)), &x); err != nil {
			t.Fatal(err)
		}
		var all []threadpool.WaitingTask
		for _, w := range x.Pool.Waiting {
			if w.Code == "checkpoint" && w.Blocker == threadpool.BlockedBudget {
				all = append(all, w)
			}
		}
		return all
	}
	all := waiting()
	for len(all)+len(ended) < 3 {
		all = waiting()
	}
	if len(all) < 2 {
		t.Fatalf("only %d checkpoints wait for bytes", len(all))
	}
	for range 3 - len(all) {
		if got := <-ended; got != "0 " {
			t.Errorf("the checkpoint that had bytes ended with %s", got)
		}
	}
	first, second := fmt.Sprint(all[0].ID), fmt.Sprint(all[1].ID)
	succeeds(t, []string{second, "io_budget"}, at("task", "explain")...)
	succeeds(t, []string{"moved task " + first + ", " + all[0].Key + ", parked, from low to high"}, at("task", "move", "#"+first, "high")...)
	if got := <-ended; got != "0 " {
		t.Errorf("the moved checkpoint ended with %s", got)
	}
	succeeds(t, []string{`"id": ` + second, `"state": "parked"`}, at("task", "cancel", second, "--json")...)
	if got := <-ended; !strings.HasPrefix(got, "1 ") || !strings.Contains(got, "cancelled") {
		t.Errorf("the cancelled checkpoint ended with %s", got)
	}
	for _, args := range [][]string{{"cancel", first}, {"cancel", second}, {"move", first, "low"}} {
		fails(t, []string{"task " + args[1] + " has ended"}, at(append([]string{"task"}, args...)...)...)
	}
	fails(t, []string{"no task 1000000", "explain"}, at("task", "cancel", "1000000")...)
	fails(t, []string{"no task 1000000", "explain"}, at("task", "move", "1000000", "low")...)
	fails(t, []string{"urgent", "low, common or high"}, at("task", "move", second, "urgent")...)
	for _, id := range []string{"x", "1.5", "-1", "99999999999999999999"} {
		fails(t, []string{id, "not the ID of a task"}, at("task", "cancel", "--", id)...)
	}
	succeeds(t, nil, at("task", "pool", "io_rate=off")...)
	for range len(all) - 2 {
		if got := <-ended; got != "0 " {
			t.Errorf("a checkpoint that nobody touched ended with %s", got)
		}
	}
}
