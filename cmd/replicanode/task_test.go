package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"replicanode/node"
	"replicanode/tasks"
	"replicanode/threadpool"
)

// row returns the fields of a table's line that begins with name.
func row(t *testing.T, text, name string) string {
	t.Helper()
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 0 && f[0] == name {
			return strings.Join(f, " ")
		}
	}
	t.Fatalf("no line %s in\n%s", name, text)
	return ""
}

func TestTaskCommands(t *testing.T) {
	n, stop := runNode(t, filepath.Join(t.TempDir(), "data"), 2)
	defer stop()
	at := func(args ...string) []string {
		return append(append([]string{"task"}, args...), "--admin", n.Addresses().Admin)
	}
	is := func(text, name, want string) {
		t.Helper()
		if got := row(t, text, name); got != want {
			t.Errorf("%s: got  %s\nwant %s", name, got, want)
		}
	}
	before := succeeds(t, []string{"MAX-STARTED", "RETRY"}, at("list", "--specs")...)
	is(before, "load_private_log", "load_private_log common - - - 1m0s - - - busy,timeout,conflict 100ms–10s ×2")
	is(before, "gc_replicas", "gc_replicas low - - - 30m0s - 1m0s ±20% other,busy,timeout,conflict 1s–1m ×2 5 attempts")
	// Several fields change together, and are shown.
	set := succeeds(t, nil, at("set", "gc_logs", "priority=common", "max_running=2", "slice=5ms", "period=1h", "jitter=0", "retry.busy.max_elapsed=90s")...)
	want := "gc_logs common 2 - - 5m0s 5ms 1h0m0s - other,timeout,conflict 1s–1m ×2 5 attempts; busy 1s–1m ×2 5 attempts within 1m30s"
	is(set, "gc_logs", want)
	if strings.Contains(set, "checkpoint") {
		t.Errorf("set shows others:\n%s", set)
	}
	// All or none.
	fails(t, []string{"jitter 7"}, at("set", "gc_logs", "priority=high", "jitter=7")...)
	fails(t, []string{"low, common or high"}, at("set", "gc_logs", "priority=urgent")...)
	fails(t, []string{"unknown field", "colour"}, at("set", "gc_logs", "colour=red")...)
	fails(t, []string{"unknown task code", "nobody", "gc_logs"}, at("set", "nobody", "priority=low")...)
	is(succeeds(t, nil, at("list", "--specs")...), "gc_logs", want)
	succeeds(t, nil, at("set", "gc_logs", "priority=low", "max_running=0", "slice=0s", "period=10s", "jitter=0.2", "retry.busy.max_elapsed=0s")...)
	if after := succeeds(t, nil, at("list", "--specs")...); after != before {
		t.Errorf("put back, the specs are\n%s\nand were\n%s", after, before)
	}
	// What is taken back is as the node was started, by whom it is changed is shown.
	succeeds(t, nil, at("set", "gc_logs", "priority=high", "slice=7ms")...)
	listed := succeeds(t, []string{"INSTEAD-OF"}, at("list")...)
	for _, line := range []string{"gc_logs priority high low operator", "gc_logs slice 7ms 0s operator", "checkpoint period 0s 1h0m0s flag"} {
		if !strings.Contains(strings.Join(strings.Fields(listed), " "), line) {
			t.Errorf("no %s in\n%s", line, listed)
		}
	}
	if one := succeeds(t, nil, at("set", "gc_logs", "priority=default")...); strings.Contains(one, "high") || !strings.Contains(one, "7ms") {
		t.Errorf("with the priority taken back\n%s", one)
	}
	fails(t, []string{"unknown field", "colour"}, at("set", "gc_logs", "colour=default")...)
	fails(t, []string{"unknown task code", "nobody"}, at("set", "nobody", "--reset")...)
	fails(t, []string{"--reset"}, at("set", "gc_logs")...)
	succeeds(t, []string{"gc_logs"}, at("set", "gc_logs", "--reset")...)
	if after := succeeds(t, nil, at("list", "--specs")...); after != before {
		t.Errorf("reset, the specs are\n%s\nand were\n%s", after, before)
	}
	// The whole pool.
	started := succeeds(t, nil, at("pool")...)
	pool := succeeds(t, nil, at("pool", "workers=6", "low_limit=2", "io_rate=1MiB", "max_wait=off")...)
	for name, want := range map[string]string{"workers": "6", "low_limit": "2", "io_rate": "1MiB", "max_wait": "off"} {
		is(pool, name, name+" "+want)
	}
	fails(t, []string{"MaxWait", "8760h"}, at("pool", "workers=1", "max_wait=2562047h")...)
	fails(t, []string{"workers"}, at("pool", "low_limit=1", "workers=0")...)
	if now := succeeds(t, nil, at("pool")...); now != pool {
		t.Errorf("after refused changes the pool has\n%s", now)
	}
	back := succeeds(t, nil, at("pool", "io_rate=default", "max_wait=default")...)
	for name, want := range map[string]string{"workers": "6", "low_limit": "2", "io_rate": "off", "max_wait": "30s"} {
		is(back, name, name+" "+want)
	}
	fails(t, []string{"unknown field", "colour"}, at("pool", "colour=default")...)
	if now := succeeds(t, nil, at("pool", "--reset")...); now != started {
		t.Errorf("reset, the pool has\n%s\nand was started with\n%s", now, started)
	}
	// The controller.
	succeeds(t, []string{"adaptive on"}, at("adaptive", "on")...)
	succeeds(t, []string{"slots taken", "adaptive on", "Last picks"}, at("explain")...)
	succeeds(t, []string{`"enabled": true`, `"reason"`}, at("explain", "--json")...)
	succeeds(t, []string{"adaptive off"}, at("adaptive", "off")...)
	succeeds(t, []string{"adaptive off"}, at("explain")...)
}

func TestExplanationTellsWhyLevelsAreWhatTheyAre(t *testing.T) {
	now := time.Now()
	task := func(id uint64, code string, base, effective threadpool.Priority, cause threadpool.Cause) threadpool.WaitingTask {
		return threadpool.WaitingTask{ID: id, Code: code, Priority: base, Effective: effective, Cause: cause, For: time.Second, Blocker: threadpool.BlockedSlot}
	}
	var out bytes.Buffer
	err := writeExplanation(&out, node.ExplainAnswer{
		Pool: threadpool.Explanation{Waiting: []threadpool.WaitingTask{
			task(1, "plain", threadpool.Low, threadpool.Low, threadpool.CauseSubmitted),
			task(2, "lifted", threadpool.High, threadpool.High, threadpool.CauseMoved),
			task(3, "old", threadpool.Low, threadpool.Common, threadpool.CauseAged),
		}},
		Adaptive: tasks.AdaptiveStatus{Enabled: true, Decisions: []tasks.AdaptiveDecision{
			{At: now, Reason: tasks.LagOverTarget, Lever: "load_private_log", From: "common", To: "high", Signal: 3.25},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"1": "1 plain low 1s slot false", "2": "2 lifted high, moved 1s slot false", "3": "3 old common, aged from low 1s slot false",
		now.Local().Format("15:04:05.000"): now.Local().Format("15:04:05.000") + " load_private_log common high lag_over_target 3.25",
	} {
		if got := row(t, out.String(), name); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
