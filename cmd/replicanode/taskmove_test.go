package main

import (
	"path/filepath"
	"testing"
)

// Numbers that name no task, or one that has ended, are told apart.
func TestTaskNumbersAreChecked(t *testing.T) {
	n, stop := runNode(t, filepath.Join(t.TempDir(), "data"), 1)
	defer stop()
	at := func(args ...string) []string {
		return append([]string{"task", args[0], "--admin", n.Addresses().Admin}, args[1:]...)
	}
	// The first task opened a partition.
	fails(t, []string{"task 1 has ended"}, at("cancel", "#1")...)
	fails(t, []string{"task 1 has ended"}, at("move", "1", "low")...)
	fails(t, []string{"no task 1000000", "explain"}, at("cancel", "1000000")...)
	fails(t, []string{"no task 1000000", "explain"}, at("move", "1000000", "low")...)
	fails(t, []string{"urgent", "low, common or high"}, at("move", "1", "urgent")...)
	for _, id := range []string{"x", "1.5", "-1", "99999999999999999999"} {
		fails(t, []string{id, "not the ID of a task"}, at("cancel", "--", id)...)
	}
}
