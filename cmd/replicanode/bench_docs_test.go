package main

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"replicanode/bench/checkpointbench"
	"replicanode/bench/crash"
	"replicanode/bench/dup"
	"replicanode/bench/kv"
	"replicanode/bench/plogbench"
	"replicanode/bench/sched"
	"replicanode/bench/simulate"
)

// TestBenchmarkNamesAreListed in the table of docs/benchmarks.md, all of them and no others, and every result has one.
func TestBenchmarkNamesAreListed(t *testing.T) {
	page, err := os.ReadFile("../../docs/benchmarks.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string][]string{}
	for _, line := range strings.Split(string(page), "\n") {
		cells := strings.Split(line, "|")
		command, isBench := strings.CutPrefix(strings.Trim(cells[min(1, len(cells)-1)], " `"), "bench ")
		if !isBench || len(cells) != 5 {
			continue
		}
		for i, word := range strings.Split(cells[2], "`") {
			if i%2 == 1 {
				listed[command] = append(listed[command], word)
			}
		}
	}
	results := map[string]struct {
		names []string
		one   any
	}{
		"dup": {dup.Names(), dup.Result{}}, "kv": {kv.Names(), kv.Result{}}, "crash": {crash.Names(), crash.Round{}},
		"sched": {sched.Names(), sched.Result{}}, "plog": {plogbench.Names(), plogbench.Result{}}, "simulate": {simulate.Names(), simulate.Result{}},
		"checkpoint": {checkpointbench.Names(), checkpointbench.Result{}},
	}
	for _, c := range benchCommand().Subcommands {
		r, known := results[c.Name]
		if !known {
			t.Errorf("the names of bench %s are not checked here", c.Name)
		} else if !slices.Equal(listed[c.Name], r.names) {
			t.Errorf("docs/benchmarks.md lists %q for bench %s, which has %q", listed[c.Name], c.Name, r.names)
		}
		text, err := json.Marshal(r.one)
		if err != nil || !strings.HasPrefix(string(text), `{"name":`) {
			t.Errorf("a result of bench %s does not begin with its name: %s, %v", c.Name, text, err)
		}
	}
}
