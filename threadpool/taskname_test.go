package threadpool

import (
	"strings"
	"testing"
)

// TestALineNamesATaskOnce: keys usually begin with the code, which is not said twice.
func TestALineNamesATaskOnce(t *testing.T) {
	x := Explanation{
		Workers: 2,
		Running: []RunningTask{{ID: 1, Code: "scrub", Key: "scrub/disk1"}, {ID: 2, Code: "scrub", Key: "disk2"}},
		Waiting: []WaitingTask{{ID: 3, Code: "scrub"}}, WaitingTotal: 1,
	}
	line := x.String()
	for _, want := range []string{"; scrub/disk1#1 runs", "; scrub[disk2]#2 runs", "first scrub#3 for"} {
		if !strings.Contains(line, want) {
			t.Errorf("no %q in %q", want, line)
		}
	}
}
