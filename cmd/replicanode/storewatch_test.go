package main

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"replicanode/node"
)

// TestStoreThatDoesNotAnswer is named within seconds, and given up in time, whatever it did before the command.
func TestStoreThatDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		var gaveUp error
		long := time.Now().Add(-time.Hour)
		w := &storeWatch{w: &out, bar: &checkpointBar{}, patience: time.Minute, begun: time.Now(), giveUp: func(err error) { gaveUp = err }}
		away := node.StoreStatus{Place: "s3://bkt/p", Problem: "connection refused", Since: &long}
		lines := func() int {
			w.look(away)
			return strings.Count(out.String(), "\n")
		}
		if n := lines(); n != 0 || gaveUp != nil {
			t.Fatalf("%d lines at once, %v", n, gaveUp)
		}
		time.Sleep(3 * time.Second)
		if n := lines(); n != 1 || !strings.Contains(out.String(), "s3://bkt/p does not answer: connection refused") || !strings.Contains(out.String(), "57s more") {
			t.Fatalf("%q", out.String())
		}
		if n := lines(); n != 1 {
			t.Fatalf("said again at once: %q", out.String())
		}
		time.Sleep(storeReminder + time.Second)
		if n := lines(); n != 2 {
			t.Fatalf("no reminder: %q", out.String())
		}
		w.look(node.StoreStatus{Place: "s3://bkt/p"})
		again := time.Now()
		away.Since = &again
		time.Sleep(59 * time.Second)
		if lines(); gaveUp != nil {
			t.Fatalf("gave up a minute after another problem: %v", gaveUp)
		}
		time.Sleep(2 * time.Second)
		if lines(); gaveUp == nil || !strings.Contains(gaveUp.Error(), "--store-timeout") {
			t.Fatalf("did not give up: %v", gaveUp)
		}
	})
}
